"""Figures 5 and 6: loss and accuracy of the paper's run, with the authors' own log."""

from flax_resnet.paper.history import Histories, History, percent, scope
from flax_resnet.paper.plan import seed_run
from flax_resnet.plots.curves import ACCURACY, LOSS, run_figure
from flax_resnet.report.document import Block, Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.runs.metrics_log import Row
from flax_resnet.runs.reference_log import PAPER, Reference, read_reference

TITLE = "Figures 5 and 6: training and test curves"


def curves_section(histories: Histories) -> Section:
    """Both figures, and ours and the authors' epochs side by side, from the run with seed 0."""
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
        + (f"; in the authors' log: {percent(theirs['test_accuracy'])}." if theirs else ".")
    )
    blocks: list[Block] = [
        Paragraph(
            "The revised network (4,903,242 parameters) trained with the paper's recipe: Adam with "
            "a constant learning rate of 1e-3, batch size 128, cross-entropy. Training loss and "
            "accuracy are measured on the augmented images during the epoch, test loss and "
            "accuracy on all test images after it. Gray: the log of the authors' own run on the "
            "original pixels."
        )
    ]
    for number, measure in (("5", LOSS), ("6", ACCURACY)):
        value = measure.in_words(ours[f"test_{measure.field}"])
        title = f"Figure {number}: {measure.field}, {history.data_note.label}; test {value}"
        title += f" after epoch {ours['epoch']}"
        if short := scope([history]):
            title += f"\n{short}"
        figure = run_figure(measure, history.rows, title, history.config.num_epochs, paper)
        caption = f"Figure {number}: training and test {measure.field}, ours and the authors'"
        blocks.append(Picture(f"figure{number}", caption, figure))
    blocks.append(_epoch_table(history, paper))
    return Section("figure5-6", TITLE, outcome, tuple(blocks))


def _epoch_table(history: History, paper: Reference) -> Table:
    """Ours and theirs at a few epochs, including the last."""
    chosen = {1, 2, 5, 10, 20, 30, 40, 50, history.last["epoch"]}
    rows = []
    for ours in (row for row in history.rows if row["epoch"] in chosen):
        theirs = _row_at(paper, ours["epoch"])
        rows.append((str(ours["epoch"]), *_cells(ours), *_cells(theirs)))
    metrics = ("train loss", "train accuracy", "test loss", "test accuracy")
    return Table(
        ("epoch", *metrics, *(f"authors' {metric}" for metric in metrics)),
        rows,
        "rrrrrrrrr",
        caption="Ours and the authors' log, epoch by epoch",
    )


def _row_at(paper: Reference, epoch: int) -> Row | None:
    return next((row for row in paper.rows if row["epoch"] == epoch), None)


def _cells(row: Row | None) -> tuple[str, ...]:
    if row is None:
        return ("-",) * 4
    return tuple(
        measure.in_words(row[f"{split}_{measure.field}"])
        for split in ("train", "test")
        for measure in (LOSS, ACCURACY)
    )
