"""Section 2.2: is Adam faster than the SGD family on the revised network?"""

from collections.abc import Mapping, Sequence

from flax_resnet.paper.history import Histories, History, figure_title, percent, scope
from flax_resnet.paper.plan import OPTIMIZER_SETTINGS, TRIAL_EPOCHS, optimizer_run
from flax_resnet.paper.rates import best_rate, tried_rates, tuned_runs
from flax_resnet.plots.curves import LOSS, comparison_figure
from flax_resnet.report.document import Block, Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.runs.metrics_log import Row

TITLE = "Optimizers (section 2.2)"
LABELS = {"adam": "Adam", "sgd": "SGD", "momentum": "Momentum", "nesterov": "Nesterov"}
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # of accuracy


def optimizers_section(histories: Histories) -> Section:
    """Curves, epochs to reach each accuracy, and the claim that Adam is faster."""
    runs = _runs(histories, {})
    missing = [LABELS[name] for name in OPTIMIZER_SETTINGS if name not in runs]
    blocks: list[Block] = [
        Paragraph(
            "The revised network with four optimizers and constant learning rates: Adam 1e-3 (the "
            "paper's); SGD 0.1; momentum and Nesterov 0.01 with momentum 0.9, the same effective "
            "step as SGD: learning rate / (1 - momentum) = 0.1. The paper gives no learning rates "
            "and no results for the SGD family. One seed each."
        )
    ]
    if missing:
        blocks.append(Paragraph(f"Not trained yet: {', '.join(missing)}."))
    if not runs:
        return Section("optimizers", TITLE, "No optimizer is trained yet.", tuple(blocks))
    blocks += _comparison("optimizers", "Optimizers, revised network", runs)
    if "adam" not in runs or len(runs) < 2:
        outcome = f"Not trained yet: {', '.join(missing)}."
        return Section("optimizers", TITLE, outcome, tuple(blocks))
    outcome = _outcome(runs)
    blocks.append(Paragraph(f"The claim is that Adam is faster. {outcome}"))
    tried = {name: trials for name in runs if (trials := tried_rates(histories, name))}
    if tried:
        blocks.append(_trial_table(tried))
    best = {name: best_rate(trials) for name, trials in tried.items()}
    tuned = _runs(histories, best)
    if tuned_runs(histories) and len(tuned) == len(runs):
        blocks += _comparison("optimizers_tuned", "Optimizers, best of three rates", tuned)
        against = f"Against the best of three rates: {_outcome(tuned)}"
        blocks.append(Paragraph(against))
        outcome += f" {against}"
    return Section("optimizers", TITLE, outcome, tuple(blocks))


def _runs(histories: Histories, rates: Mapping[str, float]) -> dict[str, History]:
    """Optimizer -> its run, where there is one; at the planned rate unless `rates` has another."""
    names = {name: optimizer_run(name, rates.get(name)).name for name in OPTIMIZER_SETTINGS}
    return {name: histories[run] for name, run in names.items() if run in histories}


def _comparison(name: str, what: str, runs: Mapping[str, History]) -> list[Block]:
    """The curves, the last common epoch, and the epochs to each accuracy."""
    budget = _budget(runs)
    curves = {
        f"{LABELS[name]} {_rate(history)}": within(history.rows, budget)
        for name, history in runs.items()
    }
    figure = comparison_figure(curves, figure_title(what, list(runs.values())))
    return [
        Picture(name, f"Loss and accuracy: {what[0].lower()}{what[1:]}", figure),
        _last_table(runs, budget),
        *(_threshold_table(runs, split, budget) for split in ("test", "train")),
    ]


def _budget(runs: Mapping[str, History]) -> int:
    return min(history.last["epoch"] for history in runs.values())


def _rate(history: History) -> str:
    return f"{history.config.learning_rate:g}"


def _outcome(runs: Mapping[str, History]) -> str:
    """What the runs say about the claim."""
    budget = _budget(runs)
    rows = {name: within(history.rows, budget) for name, history in runs.items()}
    reduced = bool(scope(list(runs.values())))
    findings = [adam_finding(rows, split, reduced) for split in ("test", "train")]
    of = " of reduced runs" if reduced else ""
    return f"Up to epoch {budget}{of}, {'; '.join(findings)}."


def _trial_table(tried: Mapping[str, Mapping[float, History]]) -> Table:
    rows = []
    for name, trials in tried.items():
        best = best_rate(trials)
        for rate, history in trials.items():
            accuracy = percent(history.last["val_accuracy"])
            rows.append((LABELS[name], f"{rate:g}", accuracy, "best" if rate == best else ""))
    held_out = next(iter(next(iter(tried.values())).values())).data.val_images
    caption = f"Rates tried for {TRIAL_EPOCHS} epochs: accuracy on {held_out:,} images held out"
    header = ("optimizer", "learning rate", "held-out accuracy", "")
    return Table(header, rows, "lrrl", caption=caption)


def within(rows: Sequence[Row], budget: int) -> list[Row]:
    """The rows up to an epoch."""
    return [row for row in rows if row["epoch"] <= budget]


def epochs_to_accuracy(rows: Sequence[Row], split: str, threshold: float) -> int | None:
    """The first epoch whose accuracy reaches `threshold`; None: no epoch does.

    Args:
      rows: epochs in order.
      split: 'train' or 'test'.
      threshold: accuracy, 0 to 1.
    """
    reached = (row["epoch"] for row in rows if row[f"{split}_accuracy"] >= threshold)
    return next(reached, None)


def adam_finding(runs: Mapping[str, Sequence[Row]], split: str, reduced: bool) -> str:
    """Which accuracies Adam reaches first, tied or later, and whether the claim holds.

    Args:
      runs: optimizer -> epochs, the same number each; 'adam' and at least one other.
      split: 'train' or 'test'.
      reduced: the runs are not the full recipes, so that they decide no claim.
    """
    places: dict[str, list[str]] = {"first to": [], "tied at": [], "later to": []}
    for threshold in THRESHOLDS:
        epochs = {name: epochs_to_accuracy(rows, split, threshold) for name, rows in runs.items()}
        adam = epochs.pop("adam")
        others = [epoch for epoch in epochs.values() if epoch is not None]
        if adam is None and not others:
            continue
        if adam is not None and (not others or adam < min(others)):
            place = "first to"
        elif adam is not None and adam == min(others):
            place = "tied at"
        else:
            place = "later to"
        places[place].append(f"{threshold:.0%}")
    words = [f"{place} {', '.join(reached)}" for place, reached in places.items() if reached]
    kind = "test" if split == "test" else "training"
    if not words:
        return f"no optimizer reaches {THRESHOLDS[0]:.0%} {kind} accuracy"
    finding = f"by {kind} accuracy Adam is {', '.join(words)}"
    if reduced:
        return finding
    if not places["first to"]:
        verdict = "does not hold"
    else:
        verdict = "holds in part" if places["tied at"] or places["later to"] else "holds"
    return f"{finding}: the claim {verdict}"


def _last_table(runs: Mapping[str, History], budget: int) -> Table:
    rows = []
    for name, history in runs.items():
        row = within(history.rows, budget)[-1]
        rows.append(
            (
                LABELS[name],
                _rate(history),
                LOSS.in_words(row["train_loss"]),
                percent(row["train_accuracy"]),
                LOSS.in_words(row["test_loss"]),
                percent(row["test_accuracy"]),
            )
        )
    return Table(
        (
            "optimizer",
            "learning rate",
            "train loss",
            "train accuracy",
            "test loss",
            "test accuracy",
        ),
        rows,
        caption=f"After epoch {budget}",
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
        ("optimizer", *(f"{threshold:.0%}" for threshold in shown)),
        cells,
        caption=f"First epoch to reach each {kind} accuracy (-: not within {budget} epochs)",
    )
