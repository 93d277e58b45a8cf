"""The results of a planned run on disk, and how far it got."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.compat import FREE_FIELDS
from flax_resnet.config.load import flat_fields
from flax_resnet.paper.data_note import DataNote, describe_data
from flax_resnet.paper.plan import PlannedRun, load_run_config
from flax_resnet.runs.folder import DataInfo, RunFolder
from flax_resnet.runs.machines import read_machines
from flax_resnet.runs.metrics_log import Row, read_epochs

# Fields that do not change the recipe, or are reported elsewhere.
_NOT_RECIPE = FREE_FIELDS | {
    "conv",
    "parallel",
    "steps_per_dispatch",
    "train_images",
    "test_images",
    "dataset",
}


@dataclasses.dataclass(frozen=True)
class History:
    """A run with at least one epoch.

    Attributes:
      run: what was planned.
      config: what was trained.
      rows: its epochs, accuracies as fractions.
      data: its images.
      data_note: a description of them.
      departures: field -> value, where the config differs from the recipe.
      recipe_epochs: number of epochs in the recipe's file.
      machines: those it was trained on, as from process.machine.
    """

    run: PlannedRun
    config: ConfigDict
    rows: Sequence[Row]
    data: DataInfo
    data_note: DataNote
    departures: Mapping[str, Any]
    recipe_epochs: int
    machines: Sequence[Mapping[str, Any]]

    @property
    def last(self) -> Row:
        """The last epoch."""
        return self.rows[-1]

    @property
    def num_epochs(self) -> int:
        """The epochs that were planned."""
        return min(self.run.epochs or self.config.num_epochs, self.config.num_epochs)

    @property
    def seconds(self) -> float:
        """Time spent in training steps, over all epochs."""
        return sum(row["seconds"] for row in self.rows)


Histories = Mapping[str, History]


def read_histories(
    folder: Path,
    runs: Sequence[PlannedRun],
    until_epoch: int | None = None,
    note: str | None = None,
) -> dict[str, History]:
    """The histories of the runs that have an epoch, by the runs' names; as `read_history`."""
    found = {run.name: read_history(folder, run, until_epoch, note) for run in runs}
    return {name: history for name, history in found.items() if history is not None}


def read_history(
    folder: Path, run: PlannedRun, until_epoch: int | None, note: str | None
) -> History | None:
    """The history of a run; None: it has no epoch yet.

    Args:
      folder: holds the run folders.
      run: which.
      until_epoch: the last epoch to read; None: all.
      note: the user's own description of the images.

    Raises:
      UserError: a file is corrupt.
    """
    files = RunFolder(folder / run.name)
    rows = read_epochs(files)
    rows = [row for row in rows if until_epoch is None or row["epoch"] <= until_epoch]
    if not rows:
        return None
    config, data, recipe = files.config(), files.data_info(), load_run_config(run)
    return History(
        run=run,
        config=config,
        rows=rows,
        data=data,
        data_note=describe_data(data, config.dataset, note),
        departures=_departures(recipe, config),
        recipe_epochs=recipe.num_epochs,
        machines=read_machines(files.path),
    )


def _departures(recipe: ConfigDict, config: ConfigDict) -> dict[str, Any]:
    planned, made = flat_fields(recipe), flat_fields(config)
    return {
        field: value
        for field, value in made.items()
        if field not in _NOT_RECIPE and value != planned.get(field)
    }


def scope(histories: Sequence[History]) -> str:
    """How runs fall short of their recipes, in a few words for titles; '': they do not."""
    words = []
    if any(h.last["epoch"] < h.num_epochs for h in histories):
        done = _span([h.last["epoch"] for h in histories])
        words.append(f"{done} of {_span([h.num_epochs for h in histories])} epochs")
    if any(h.config.num_epochs != h.recipe_epochs for h in histories):
        of = _span([h.config.num_epochs for h in histories])
        words.append(f"recipe of {of} epochs, not {_span([h.recipe_epochs for h in histories])}")
    numbers = []
    if any(h.config.train_images is not None for h in histories):
        numbers.append(f"{_span([h.data.train_images for h in histories])} training")
    if any(h.config.test_images is not None for h in histories):
        numbers.append(f"{_span([h.data.test_images for h in histories])} test")
    if numbers:
        words.append(f"{' / '.join(numbers)} images")
    if any(field.startswith("design.") for h in histories for field in h.departures):
        words.append("networks changed")
    return f"reduced: {', '.join(words)}" if words else ""


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def figure_title(what: str, histories: Sequence[History]) -> str:
    """What a figure shows and on which images; a second line if the runs are reduced."""
    title = f"{what}, {histories[0].data_note.label}"
    short = scope(histories)
    return f"{title}\n{short}" if short else title


def percent(fraction: float) -> str:
    """A fraction as in 90.84%."""
    return f"{fraction:.2%}"
