"""Section 3: final accuracies over seeds, and the claim that there is no overfitting."""

from collections.abc import Sequence

from flax_resnet.inference.calibration import Calibration
from flax_resnet.paper.calibration import calibration_finding
from flax_resnet.paper.history import Histories, History, percent, scope
from flax_resnet.paper.plan import seed_run
from flax_resnet.plots.reliability import calibration_figure
from flax_resnet.report.document import Block, Paragraph, Picture, Section
from flax_resnet.report.spread import spread
from flax_resnet.report.table import Table
from flax_resnet.runs.metrics_log import Row
from flax_resnet.runs.reference_log import PAPER, read_reference

SPLITS = ("train", "test")
TITLE = "Results (section 3)"


def results_section(
    histories: Histories, seeds: int, calibration: tuple[int, Calibration] | None = None
) -> Section:
    """Each seed's accuracies and the paper's, and whether the network overfits.

    Args:
      histories: of the runs.
      seeds: how many are planned.
      calibration: of the run with seed 0, and the step it was measured after.
    """
    runs = {seed: histories.get(seed_run(seed).name) for seed in range(seeds)}
    done = {seed: history for seed, history in runs.items() if history is not None}
    missing = [str(seed) for seed in runs if seed not in done]
    blocks: list[Block] = []
    if missing:
        blocks.append(Paragraph(f"Not trained yet: seed {', '.join(missing)}."))
    if not done:
        return Section("results", TITLE, "No seed is trained yet.", tuple(blocks))
    if short := scope(list(done.values())):
        blocks.append(
            Paragraph(f"These runs are {short}, so not comparable with the paper's results.")
        )
    paper = read_reference(PAPER).rows
    blocks.append(_accuracy_table(done, paper[-1]))
    confidence = None
    if calibration is not None and 0 in done and done[0].last["step"] == calibration[0]:
        confidence = calibration[1]
        title = f"Confidence, seed 0, {done[0].data_note.label}"
        caption = "Test accuracy by confidence, and the share of the images"
        figure = calibration_figure(confidence, title)
        blocks.append(Picture("calibration", caption, figure))
    seed, first = next(iter(done.items()))
    blocks.append(Paragraph(overfitting_finding(f"Ours (seed {seed})", first.rows)))
    if confidence is not None:
        blocks.append(Paragraph(f"Ours (seed 0): {calibration_finding(confidence)}"))
    blocks.append(Paragraph(overfitting_finding("The authors' log", paper)))
    epoch, rows = _common_epoch(done)
    train, test = (spread([row[f"{split}_accuracy"] for row in rows]) for split in SPLITS)
    outcome = (
        f"After epoch {epoch}: train {train}, test {test} over {test.count} "
        f"seed{'s' if test.count > 1 else ''}; the paper after epoch {paper[-1]['epoch']}: "
        f"{percent(paper[-1]['train_accuracy'])}, {percent(paper[-1]['test_accuracy'])}."
    )
    return Section("results", TITLE, outcome, tuple(blocks))


def _accuracy_table(done: dict[int, History], paper: Row) -> Table:
    rows = [
        (f"seed {seed}", str(history.last["epoch"]), *_cells(history.last))
        for seed, history in done.items()
    ]
    if len(done) > 1:
        epoch, same = _common_epoch(done)
        train, test = ([row[f"{split}_accuracy"] for row in same] for split in SPLITS)
        gap = [a - b for a, b in zip(train, test, strict=True)]
        means = str(spread(train)), str(spread(test)), str(spread(gap))
        rows.append(("mean ± std", str(epoch), *means))
    rows.append(("the paper", str(paper["epoch"]), *_cells(paper)))
    return Table(
        ("run", "epochs", "train accuracy", "test accuracy", "gap"),
        rows,
        caption="Accuracy after the last epoch (std: of the sample, n - 1)",
    )


def _common_epoch(done: dict[int, History]) -> tuple[int, list[Row]]:
    """The last epoch that all seeds have, and its row of each."""
    epoch = min(history.last["epoch"] for history in done.values())
    rows = [next(r for r in history.rows if r["epoch"] == epoch) for history in done.values()]
    return epoch, rows


def _cells(row: Row) -> tuple[str, str, str]:
    train, test = row["train_accuracy"], row["test_accuracy"]
    return percent(train), percent(test), percent(train - test)


def overfitting_finding(who: str, rows: Sequence[Row]) -> str:
    """What a run says about the claim "both above 90%, so there is no overfitting".

    Args:
      who: whose run; the text starts with it.
      rows: its epochs.
    """
    last = rows[-1]
    gap = 100 * (last["train_accuracy"] - last["test_accuracy"])
    both = min(last["train_accuracy"], last["test_accuracy"]) > 0.9
    finite = [row for row in rows if row["test_loss"] is not None]
    text = (
        f"{who}: after epoch {last['epoch']} both accuracies are "
        f"{'' if both else 'not '}above 90%; the gap is {gap:.2f} points."
    )
    if not finite or last["test_loss"] is None:
        return f"{text} The test loss is not finite."
    lowest = min(finite, key=lambda row: row["test_loss"])
    if lowest["epoch"] == last["epoch"]:
        return f"{text} The test loss is at its lowest: no overfitting so far."
    if last["train_loss"] is not None and last["train_loss"] < lowest["train_loss"]:
        return (
            f"{text} The test loss was lowest after epoch {lowest['epoch']} "
            f"({lowest['test_loss']:.4f}) and rose to {last['test_loss']:.4f}, while the training "
            f"loss fell from {lowest['train_loss']:.4f} to {last['train_loss']:.4f}: that is "
            "overfitting, whatever the accuracies."
        )
    return f"{text} The test loss rose after epoch {lowest['epoch']}, and so did the training loss."
