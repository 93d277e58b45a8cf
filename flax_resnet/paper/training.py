"""Trains what the report needs, one run after the other, and goes on where it was stopped."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from flax_resnet.config.compat import check_may_resume
from flax_resnet.paper.history import MACHINES_FILE, read_machines
from flax_resnet.paper.plan import PlannedRun
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text
from flax_resnet.process.machine import machine
from flax_resnet.process.signals import Interrupted, StopRequest
from flax_resnet.runs.folder import RunFolder
from flax_resnet.training.loop import train_and_evaluate


def train_runs(
    runs: Sequence[tuple[PlannedRun, ConfigDict]],
    folder: Path,
    until_epoch: int | None,
    log: Callable[[str], None],
) -> int | None:
    """Trains runs to an epoch, or goes on training them.

    Args:
      runs: what to train, with its config.
      folder: holds a run folder a run.
      until_epoch: of each recipe; None: its last.
      log: takes the lines for people.

    Returns:
      The signal that stopped it; None: all are trained.

    Raises:
      UserError: anything the user can put right. That a run was made with another config is found
        before any is trained.
    """
    for run, config in runs:
        _check_unchanged(folder / run.name, config)
    with StopRequest().listening() as stop:
        try:
            for number, (run, config) in enumerate(runs, start=1):
                log(f"run {number} of {len(runs)}: {run.name}, {_goal(config, until_epoch)}")
                _note_machine(folder / run.name)
                outcome = train_and_evaluate(
                    config,
                    folder / run.name,
                    until_epoch=until_epoch,
                    stop=stop,
                )
                if outcome.signum is not None:
                    return outcome.signum
        except Interrupted as stopped:  # with nothing to save, as while it compiles
            return stopped.signum
    return None


def _goal(config: ConfigDict, until_epoch: int | None) -> str:
    if until_epoch is None or until_epoch >= config.num_epochs:
        return f"{config.num_epochs} epochs"
    return f"the first {until_epoch} of {config.num_epochs} epochs"


def _check_unchanged(path: Path, config: ConfigDict) -> None:
    run = RunFolder(path)
    if run.config_file.exists():
        check_may_resume(str(path), run.config(), config, "--out")


def _note_machine(path: Path) -> None:
    """Adds this machine to those that the run was trained on."""
    known, this = read_machines(path), machine()
    if this in known:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}") from error
    write_text(path / MACHINES_FILE, json.dumps([*known, this], indent=2) + "\n")
