"""Histories of runs that were never trained, for the sections' arithmetic."""

from collections.abc import Sequence

from flax_resnet.paper.data_sets import DataNote
from flax_resnet.paper.history import History
from flax_resnet.paper.plan import PlannedRun, load_run_config
from flax_resnet.runs.folder import DataInfo
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
        }
        for epoch, (a, b) in enumerate(zip(train, test, strict=True), start=1)
    ]


def make_history(run: PlannedRun, rows: list[Row], **changes: object) -> History:
    """A run on CIFAR-10 with these epochs; `changes` are fields of its config."""
    config = load_run_config(run)
    recipe_epochs = config.num_epochs
    with config.unlocked():
        config.update(changes)
    data = DataInfo(
        class_names=tuple("0123456789"),
        image_shape=(32, 32, 3),
        train_images=config.train_images or 50_000,
        test_images=config.test_images or 10_000,
        val_images=0,
        digest="0",
        source="cifar10",
    )
    note = DataNote("CIFAR-10", "made up")
    return History(run, config, rows, data, note, {}, recipe_epochs, [])
