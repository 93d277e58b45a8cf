"""Trains the runs of the report one after the other, resuming those that were stopped."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from flax_resnet.config.compat import check_may_resume
from flax_resnet.paper.plan import PlannedRun
from flax_resnet.process.signals import StopRequest
from flax_resnet.runs.folder import RunFolder
from flax_resnet.training.loop import train_and_evaluate

logger = logging.getLogger(__name__)


def train_runs(
    runs: Sequence[tuple[PlannedRun, ConfigDict]],
    folder: Path,
    until_epoch: int | None,
) -> int | None:
    """Trains or resumes runs.

    Args:
      runs: what to train, with its config.
      folder: holds the run folders.
      until_epoch: the epoch to end after; None: the last of each run.

    Returns:
      The signal that stopped it; None: all are trained.

    Raises:
      UserError: a run cannot be trained. A run begun with another config is refused before any run
        starts.
    """
    for run, config in runs:
        _check_unchanged(folder / run.name, config)
    stop = StopRequest(listens=True)
    for number, (run, config) in enumerate(runs, start=1):
        last = _last_epoch(run, until_epoch)
        logger.info("run %d of %d: %s, %s", number, len(runs), run.name, _goal(config, last))
        outcome = train_and_evaluate(config, folder / run.name, until_epoch=last, stop=stop)
        if outcome.signum is not None:
            return outcome.signum
    return None


def _last_epoch(run: PlannedRun, until_epoch: int | None) -> int | None:
    """The epoch to end after; None: the recipe's last."""
    return min((n for n in (run.epochs, until_epoch) if n is not None), default=None)


def _goal(config: ConfigDict, until_epoch: int | None) -> str:
    if until_epoch is None or until_epoch >= config.num_epochs:
        return f"{config.num_epochs} epochs"
    return f"the first {until_epoch} of {config.num_epochs} epochs"


def _check_unchanged(path: Path, config: ConfigDict) -> None:
    run = RunFolder(path)
    if run.config_file.exists():
        check_may_resume(str(path), run.config(), config, "--out")
