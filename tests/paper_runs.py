"""Runs that were never trained: as histories, and as run folders."""

import json
from collections.abc import Sequence
from pathlib import Path

from flax_resnet.paper.data_note import DataNote
from flax_resnet.paper.history import History
from flax_resnet.paper.plan import PlannedRun, load_run_config
from flax_resnet.runs.folder import Arithmetic, DataInfo, RunFolder
from flax_resnet.runs.metrics_log import Row


def make_rows(train: Sequence[float], test: Sequence[float]) -> list[Row]:
    """An epoch of 391 steps for each pair of accuracies; losses fall as the accuracies rise."""
    return [
        {
            "epoch": epoch,
            "step": 391 * epoch,
            "train_accuracy": a,
            "test_accuracy": b,
            "train_loss": 2 - 2 * a,
            "test_loss": 2 - 2 * b,
            "seconds": 10.0,
            "learning_rate": 0.1,
            "images_per_second": 80.0,
        }
        for epoch, (a, b) in enumerate(zip(train, test, strict=True), start=1)
    ]


def make_history(run: PlannedRun, rows: list[Row], **changes: object) -> History:
    """A run on CIFAR-10 with these epochs and changed config fields."""
    config = load_run_config(run)
    recipe_epochs = config.num_epochs
    with config.unlocked():
        config.update(changes)
    data = _data(config.train_images or 50_000, config.test_images or 10_000, "cifar10")
    return History(run, config, rows, data, DataNote("CIFAR-10", ""), {}, recipe_epochs, [])


def write_run(folder: Path, run: PlannedRun, rows: list[Row], overrides: Sequence[str]) -> None:
    """Writes what train_runs leaves of a run that the report reads."""
    path = folder / run.name
    path.mkdir(parents=True)
    config = load_run_config(run, overrides)
    config.train_images, config.test_images = 64, 40
    RunFolder(path).claim(config, _data(64, 40, config.dataset), Arithmetic("native", "cpu", 1))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _data(train_images: int, test_images: int, source: str) -> DataInfo:
    return DataInfo(tuple("0123456789"), (32, 32, 3), train_images, test_images, 0, "0", source)
