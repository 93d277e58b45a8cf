"""Figures 5 and 6: loss and accuracy of the paper's own run, over the authors' log of theirs."""

from flax_resnet.paper.history import Histories, History, percent, scope
from flax_resnet.paper.plan import seed_run
from flax_resnet.plots.curves import ACCURACY, LOSS, run_figure
from flax_resnet.report.document import Block, Paragraph, Picture, Section, Table
from flax_resnet.runs.metrics_log import Row
from flax_resnet.runs.reference_log import PAPER, Reference, read_reference

TITLE = "Figures 5 and 6: training and test curves"


def curves_section(histories: Histories) -> Section:
    """Both figures and the epochs side by side, from the run of seed 0."""
    history = histories.get(seed_run(0).name)
    if history is None:
        text = "The revised network is not trained yet."
        return Section("figure5-6", TITLE, text, (Paragraph(text),))
    paper = read_reference(PAPER)
    ours = history.last
    theirs = _row_at(paper, ours["epoch"])
    outcome = (
        f"After epoch {ours['epoch']} of {history.config.num_epochs}: test accuracy "
        f"{percent(ours['test_accuracy'])}"
        + (f"; the authors' log there: {percent(theirs['test_accuracy'])}." if theirs else ".")
    )
    blocks: list[Block] = [
        Paragraph(
            "The revised network (4,903,242 parameters) under the paper's recipe: Adam with a "
            "constant learning rate of 1e-3, batches of 128, cross-entropy. Training figures are "
            "those of the augmented images while the epoch ran; test figures are over all test "
            "images after it. Grey: the log of the authors' own run on the original pixels."
        )
    ]
    for number, measure in (("5", LOSS), ("6", ACCURACY)):
        value = measure.in_words(ours[f"test_{measure.field}"])
        title = f"Figure {number}: {measure.field}, {history.data_note.label}; test {value}"
        title += f" after epoch {ours['epoch']}"
        if short := scope([history]):
            title += f"\n{short}"
        figure = run_figure(measure, history.rows, history.config, paper, title)
        caption = f"Figure {number}: training and test {measure.field}, ours and the authors'"
        blocks.append(Picture(f"figure{number}", caption, figure))
    blocks.append(_epoch_table(history, paper))
    return Section("figure5-6", TITLE, outcome, tuple(blocks))


def _epoch_table(history: History, paper: Reference) -> Table:
    """Ours and theirs at a few epochs, the last among them."""
    chosen = {1, 2, 5, 10, 20, 30, 40, 50, history.last["epoch"]}
    rows = []
    for ours in (row for row in history.rows if row["epoch"] in chosen):
        theirs = _row_at(paper, ours["epoch"])
        rows.append((str(ours["epoch"]), *_figures(ours), *_figures(theirs)))
    return Table(
        "Ours and the authors' log, epoch by epoch",
        (
            "epoch",
            *("train loss", "train accuracy", "test loss", "test accuracy"),
            *("authors' train loss", "authors' train accuracy"),
            *("authors' test loss", "authors' test accuracy"),
        ),
        tuple(rows),
        text_columns=0,
    )


def _row_at(paper: Reference, epoch: int) -> Row | None:
    return next((row for row in paper.rows if row["epoch"] == epoch), None)


def _figures(row: Row | None) -> tuple[str, ...]:
    if row is None:
        return ("-",) * 4
    return tuple(
        measure.in_words(row[f"{split}_{measure.field}"])
        for split in ("train", "test")
        for measure in (LOSS, ACCURACY)
    )
