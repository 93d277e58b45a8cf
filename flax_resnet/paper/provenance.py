"""How the report was made: runs, images, machines, versions, time."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet.paper.history import Histories, History
from flax_resnet.paper.plan import PlannedRun
from flax_resnet.report.document import Block, Folded, Paragraph, Section
from flax_resnet.report.table import Table

TITLE = "How this was made"


def provenance_section(
    runs: Sequence[PlannedRun], histories: Histories, machine: Mapping[str, Any]
) -> Section:
    """The runs, and the images and machines they were trained on.

    Args:
      runs: all that the sections need.
      histories: those with at least one epoch.
      machine: the one writing the report, as from machine.machine.
    """
    blocks: list[Block] = []
    trained = [history for run in runs if (history := histories.get(run.name)) is not None]
    if trained:
        images = list(dict.fromkeys(h.data_note.description for h in trained))
        blocks += [Paragraph(f"Images: {text}.") for text in images]
    if runs:
        blocks.append(Folded(_run_table(runs, histories)))
    if trained:
        blocks.append(Paragraph(_time(trained)))
    blocks += [Paragraph(f"Changed from the recipes: {text}.") for text in _departures(trained)]
    blocks += [Paragraph(f"Trained on: {text}.") for text in _machines(trained)]
    blocks.append(Paragraph(f"Report written on: {describe_machine(machine)}."))
    return Section("provenance", TITLE, "", tuple(blocks))


def describe_machine(machine: Mapping[str, Any]) -> str:
    """Processor, cores, devices, system and versions."""
    devices = list(machine["devices"])
    counted = ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    return (
        f"{machine['processor']}, {machine['cores']} cores; JAX devices: {counted}; "
        f"{machine['system']}; Python {machine['python']}, {versions}"
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in 2:03:04."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _run_table(runs: Sequence[PlannedRun], histories: Histories) -> Table:
    rows = []
    for run in runs:
        history = histories.get(run.name)
        changes = ", ".join(f"{field} {value}" for field, value in run.changes) or "-"
        rows.append((run.name, f"configs/{run.recipe}.py", changes, *_cells(history)))
    return Table(
        (
            "run",
            "recipe",
            "changes",
            "epochs",
            "seed",
            "training images",
            "test images",
            "training (h:mm:ss)",
        ),
        rows,
        "lllrrrrr",
        caption="The runs",
    )


def _cells(history: History | None) -> tuple[str, ...]:
    if history is None:
        return ("none yet", "-", "-", "-", "-")
    return (
        f"{history.last['epoch']} of {history.num_epochs}",
        str(history.config.seed),
        f"{history.data.train_images:,}",
        f"{history.data.test_images:,}",
        duration(history.seconds),
    )


def _time(trained: Sequence[History]) -> str:
    total = duration(sum(history.seconds for history in trained))
    return (
        f"Training steps took {total} (h:mm:ss) in total, without reading data, compiling and "
        "evaluating."
    )


def _departures(trained: Sequence[History]) -> list[str]:
    """One line per set of changes, with the runs that have it."""
    groups: dict[str, list[str]] = {}
    for history in trained:
        text = ", ".join(f"config.{field}={value}" for field, value in history.departures.items())
        if text:
            groups.setdefault(text, []).append(history.run.name)
    return [f"{text} ({', '.join(names)})" for text, names in groups.items()]


def _machines(trained: Sequence[History]) -> list[str]:
    """One line per machine, with its runs."""
    groups: dict[str, list[str]] = {}
    for history in trained:
        for machine in history.machines:
            groups.setdefault(describe_machine(machine), []).append(history.run.name)
        if not history.machines:
            groups.setdefault("an unknown machine", []).append(history.run.name)
    if len(groups) == 1:
        return list(groups)
    return [f"{text} ({', '.join(names)})" for text, names in groups.items()]
