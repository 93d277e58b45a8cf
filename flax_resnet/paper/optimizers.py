"""Section 2.2, optimizer choice: is Adam faster than the SGD family on the revised network?"""

from collections.abc import Mapping, Sequence

from flax_resnet.paper.history import Histories, History, figure_title, percent, scope
from flax_resnet.paper.plan import OPTIMIZER_SETTINGS, optimizer_run
from flax_resnet.plots.curves import comparison_figure
from flax_resnet.report.document import Block, Paragraph, Picture, Section, Table
from flax_resnet.runs.metrics_log import Row

TITLE = "Optimizers (section 2.2)"
LABELS = {"adam": "Adam", "sgd": "SGD", "momentum": "Momentum", "nesterov": "Nesterov"}
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of accuracy


def optimizers_section(histories: Histories) -> Section:
    """Curves, epochs to each accuracy, and the claim that Adam gets there faster."""
    runs = {
        name: histories[optimizer_run(name).name]
        for name in OPTIMIZER_SETTINGS
        if optimizer_run(name).name in histories
    }
    missing = [LABELS[name] for name in OPTIMIZER_SETTINGS if name not in runs]
    blocks: list[Block] = [
        Paragraph(
            "The revised network under the same budget, with four optimizers and constant learning "
            "rates: Adam 1e-3 (the paper's); SGD 0.1; momentum and Nesterov 0.9 with 0.01, the "
            "same effective step as SGD's, learning rate / (1 - momentum) = 0.1. The paper gives "
            "none for the SGD family and compares no figures; one seed each, no tuning."
        )
    ]
    if missing:
        blocks.append(Paragraph(f"Not trained yet: {', '.join(missing)}."))
    if not runs:
        return Section("optimizers", TITLE, "No optimizer is trained yet.", tuple(blocks))
    title = figure_title("Optimizers, revised network", list(runs.values()))
    figure = comparison_figure({LABELS[name]: h.rows for name, h in runs.items()}, title)
    blocks.append(Picture("optimizers", "Loss and accuracy by optimizer", figure))
    budget = min(history.last["epoch"] for history in runs.values())
    blocks.append(_last_table(runs, budget))
    blocks += [_threshold_table(runs, split, budget) for split in ("test", "train")]
    if "adam" not in runs or len(runs) < 2:
        outcome = f"Not trained yet: {', '.join(missing)}."
    else:
        rows = {name: within(history.rows, budget) for name, history in runs.items()}
        findings = [adam_finding(rows, split) for split in ("test", "train")]
        reduced = ", a reduced run" if scope(list(runs.values())) else ""
        outcome = f"Adam up to epoch {budget}{reduced}: {'; '.join(findings)}."
        blocks.append(Paragraph(f"Is Adam faster, as the paper says? {outcome}"))
    return Section("optimizers", TITLE, outcome, tuple(blocks))


def within(rows: Sequence[Row], budget: int) -> list[Row]:
    """The epochs up to a budget."""
    return [row for row in rows if row["epoch"] <= budget]


def epochs_to_accuracy(rows: Sequence[Row], split: str, threshold: float) -> int | None:
    """The first epoch whose accuracy reaches `threshold` (0 to 1); None: no epoch does.

    Args:
      rows: epochs in order.
      split: 'train' or 'test'.
      threshold: accuracy as a fraction.
    """
    reached = (row["epoch"] for row in rows if row[f"{split}_accuracy"] >= threshold)
    return next(reached, None)


def adam_finding(runs: Mapping[str, Sequence[Row]], split: str) -> str:
    """Where Adam is first, shares the first place, or comes later, in words.

    Args:
      runs: optimizer -> epochs, all of the same budget; 'adam' and one or more others.
      split: 'train' or 'test'.
    """
    places: dict[str, list[str]] = {"first to": [], "level at": [], "later to": []}
    for threshold in THRESHOLDS:
        epochs = {name: epochs_to_accuracy(rows, split, threshold) for name, rows in runs.items()}
        adam = epochs.pop("adam")
        others = [epoch for epoch in epochs.values() if epoch is not None]
        if adam is None and not others:
            continue
        if adam is not None and (not others or adam < min(others)):
            place = "first to"
        elif adam is not None and adam == min(others):
            place = "level at"
        else:
            place = "later to"
        places[place].append(f"{threshold:.0%}")
    words = [f"{place} {', '.join(reached)}" for place, reached in places.items() if reached]
    kind = "test" if split == "test" else "training"
    if not words:
        return f"no optimizer reaches {THRESHOLDS[0]:.0%} {kind} accuracy"
    others_first = places["level at"] or places["later to"]
    if places["first to"]:
        verdict = "holds in part" if others_first else "holds"
    else:
        verdict = "does not hold"
    return f"by {kind} accuracy the claim {verdict} ({'; '.join(words)})"


def _last_table(runs: Mapping[str, History], budget: int) -> Table:
    rows = []
    for name, history in runs.items():
        row = within(history.rows, budget)[-1]
        rows.append(
            (
                LABELS[name],
                f"{OPTIMIZER_SETTINGS[name]['learning_rate']:g}",
                f"{row['train_loss']:.4f}" if row["train_loss"] is not None else "not finite",
                percent(row["train_accuracy"]),
                f"{row['test_loss']:.4f}" if row["test_loss"] is not None else "not finite",
                percent(row["test_accuracy"]),
            )
        )
    return Table(
        f"After epoch {budget}",
        (
            "optimizer",
            "learning rate",
            *("train loss", "train accuracy", "test loss", "test accuracy"),
        ),
        tuple(rows),
    )


def _threshold_table(runs: Mapping[str, History], split: str, budget: int) -> Table:
    rows = {name: within(history.rows, budget) for name, history in runs.items()}
    shown = [
        threshold
        for threshold in THRESHOLDS
        if any(epochs_to_accuracy(r, split, threshold) for r in rows.values())
    ]
    cells = []
    for name, own in rows.items():
        epochs = (epochs_to_accuracy(own, split, threshold) for threshold in shown)
        cells.append((LABELS[name], *(str(epoch or "-") for epoch in epochs)))
    kind = "test" if split == "test" else "training"
    return Table(
        f"First epoch to reach each {kind} accuracy (-: not in {budget} epochs)",
        ("optimizer", *(f"{threshold:.0%}" for threshold in shown)),
        tuple(cells),
    )
