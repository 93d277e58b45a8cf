"""Figures 5 and 6: loss and accuracy of the paper's run, with the authors' own log."""

import statistics
from collections.abc import Sequence

from flax_resnet.paper.history import Histories, History, figure_title, percent, scope
from flax_resnet.paper.plan import seed_run
from flax_resnet.plots.curves import ACCURACY, LOSS, comparison_figure, run_figure
from flax_resnet.report.document import Block, Folded, Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.runs.metrics_log import Row
from flax_resnet.runs.reference_log import PAPER, Reference, read_reference

LAST_EPOCHS = 10  # single epochs scatter by half a point
TITLE = "Figures 5 and 6: training and test curves"


def curves_section(histories: Histories, pytorch: Sequence[Row] = ()) -> Section:
    """Both figures from the run with seed 0, with the authors' epochs and PyTorch's.

    Args:
      histories: of the runs.
      pytorch: epochs of the same recipe in PyTorch.
    """
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
    blocks.append(Folded(_epoch_table(history, paper)))
    if pytorch:
        blocks += _pytorch_blocks(history, pytorch)
    return Section("figure5-6", TITLE, outcome, tuple(blocks))


def _pytorch_blocks(history: History, pytorch: Sequence[Row]) -> list[Block]:
    """Curves of both frameworks, and by how much they differ."""
    title = figure_title("The same recipe in JAX and in PyTorch", [history])
    figure = comparison_figure({"JAX (this program)": history.rows, "PyTorch": pytorch}, title)
    return [
        Picture("pytorch", "Loss and accuracy of the paper's recipe in both frameworks", figure),
        Paragraph(
            "The same images, batches and augmentation, in the same order; each network has its "
            "own framework's random initial weights. " + framework_finding(history.rows, pytorch)
        ),
    ]


def framework_finding(ours: Sequence[Row], pytorch: Sequence[Row]) -> str:
    """By how much the accuracies of two runs differ in the last epochs that both have."""
    theirs = {row["epoch"]: row for row in pytorch}
    both = [(row, theirs[row["epoch"]]) for row in ours if row["epoch"] in theirs][-LAST_EPOCHS:]
    if not both:
        return "They have no epoch in common."
    words = []
    for split, name in (("test", "test"), ("train", "training")):
        here, there = (
            percent(statistics.fmean(pair[i][f"{split}_accuracy"] for pair in both)) for i in (0, 1)
        )
        words.append(f"{name} accuracy {here} here, {there} in PyTorch")
    first, last = both[0][0]["epoch"], both[-1][0]["epoch"]
    return f"Mean of epochs {first} to {last}: {'; '.join(words)}."


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
