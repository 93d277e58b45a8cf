"""Trainings on disks that are full, fill up, or cannot be written: real ones, in memory."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import Row
from flax_resnet.training.hooks import Hook
from flax_resnet.training.loop import train_and_evaluate
from flax_resnet.training.progress import Progress
from flax_resnet.training.session import Session
from tests.conftest import tiny_config
from tests.training.test_loop import assert_same_weights, rows_without_clock


def mount(folder: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount(folder, "size=4m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a disk takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    stat = os.statvfs(disk)
    path = disk / "filler"
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize)
    return path


def test_a_run_whose_checkpoints_have_no_room_is_not_begun(disk, one_device, log_lines):
    config = tiny_config(**{"design.stage_channels": (64, 128)})
    with pytest.raises(UserError, match="No space left"):
        train_and_evaluate(config, disk / "run", devices=one_device)
    assert not any(line.startswith(("compiled", "epoch")) for line in log_lines)


# Orbax gives up on the arrays that it still writes; the command line hides that (console.py).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_the_run_goes_on(
    disk, tiny_run, one_device, log_lines
):
    class Fill(Hook):
        def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
            if record["epoch"] == 1:
                fill(disk)

    config = tiny_config(checkpoint_every_steps=2)
    with pytest.raises(UserError, match="No space left"):
        train_and_evaluate(config, disk / "run", devices=one_device, hooks=[Fill()])
    assert not list((disk / "run/checkpoints").glob("writing-*"))
    saved = load_trained(disk / "run").step
    assert saved > 0
    (disk / "filler").unlink()
    train_and_evaluate(config, disk / "run", devices=one_device)
    assert any(line.startswith(f"resuming from step {saved} ") for line in log_lines)
    assert rows_without_clock(disk / "run") == rows_without_clock(tiny_run)
    assert_same_weights(disk / "run", tiny_run)


def test_a_read_only_workdir_is_refused_in_one_line(disk, one_device):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match="workdir .* cannot be written: Read-only file system"):
        train_and_evaluate(tiny_config(), disk / "run", devices=one_device)


def test_a_cache_that_cannot_be_written_is_done_without(disk, tmp_path, one_device, log_lines):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    config = tiny_config(num_epochs=1)
    train_and_evaluate(config, tmp_path / "run", devices=one_device, cache_dir=disk / "cache")
    assert any("without caching the dataset" in line for line in log_lines)
