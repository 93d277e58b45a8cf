"""Runs of several processes: killed, stopped, resumed with other numbers of them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_resnet.process.distributed import ENDED
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import tiny_config
from tests.groups import outputs, start_group
from tests.stress.trainings import difference, everything_saved, overrides

pytestmark = pytest.mark.stress  # minutes: each test starts several groups of processes

EPOCHS = 6
# The last batch of 4 is one that 8 devices cannot share.
CHANGES: dict[str, Any] = {"train_images": 196, "num_epochs": EPOCHS}


def start(workdir: Path, num_processes: int = 2, devices: int = 4, **changes: object) -> Any:
    """train.py in processes of its own."""
    program = ["train.py", "--config", "quickstart", "--workdir", str(workdir)]
    return start_group([*program, *overrides(**CHANGES | changes)], num_processes, devices)


def until(process: subprocess.Popen[str], start: str) -> str:
    """What it prints until a line that starts so."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            return "".join(lines)
    raise AssertionError(f"no line {start!r}: {''.join(lines)}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing happened to."""
    workdir = tmp_path_factory.mktemp("groups") / "whole"
    group = start(workdir)
    texts = outputs(group)
    assert [process.returncode for process in group] == [0, 0], texts
    assert "8 x cpu of 2 processes" in texts[0][0] and "epoch" in texts[0][0]
    assert "epoch" not in texts[1][0] and [error for _, error in texts] == ["", ""]
    assert json.loads((workdir / "arithmetic.json").read_text())["processes"] == 2
    return workdir


def test_two_processes_train_as_one(whole, tmp_path):
    """To the rounding of sums in another order; engine/test_processes.py has it in float64."""
    workdir = tmp_path / "run"
    train_and_evaluate(tiny_config(**CHANGES | {"num_epochs": 1}), workdir)
    (one,), (first, *_) = (read_metrics(run / "metrics.jsonl") for run in (workdir, whole))
    assert (one["step"], one["test_accuracy"]) == (first["step"], first["test_accuracy"])
    for name in ("train_loss", "test_loss", "train_accuracy"):
        assert first[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_same_command_resumes(victim, whole, tmp_path):
    workdir = tmp_path / "run"
    group = start(workdir, checkpoint_every_steps=3)
    until(group[0], "epoch 2/")
    group[victim].kill()
    killed = time.monotonic()
    ((_, error),) = outputs([group[1 - victim]])
    assert time.monotonic() - killed < 60
    assert group[1 - victim].returncode == 2
    assert error.startswith(f"error: {ENDED}") and error.count("\n") == 1
    outputs([group[victim]])
    group = start(workdir, checkpoint_every_steps=3)
    texts = outputs(group)
    assert [process.returncode for process in group] == [0, 0], texts
    assert "resuming from step" in texts[0][0]
    assert difference(everything_saved(workdir), everything_saved(whole)) is None


def test_sigterm_to_one_stops_both_at_a_step_and_other_numbers_of_processes_resume(
    tmp_path, log_lines
):
    workdir = tmp_path / "run"
    group = start(workdir, num_epochs=1000)
    until(group[0], "epoch 1/")
    group[1].send_signal(signal.SIGTERM)
    texts = outputs(group)
    assert [process.returncode for process in group] == [128 + signal.SIGTERM] * 2, texts
    (step,) = (int(line.split()[3]) for line in texts[0][0].splitlines() if "saved at" in line)
    saved = everything_saved(workdir)
    assert int(next(array for name, array in saved.items() if name.endswith(".step"))) == step

    # One process of all eight devices reads the same bits.
    config = tiny_config(**CHANGES | {"num_epochs": 1000})
    epoch = step // 7 + 1
    train_and_evaluate(config, workdir, until_epoch=epoch)
    assert any(f"resuming from step {step} " in line for line in log_lines)
    assert any("8 x cpu of 2 processes with native" in line for line in log_lines)

    group = start(workdir, num_processes=4, devices=2, num_epochs=1000)
    printed = until(group[0], f"epoch {epoch + 1}/")
    assert f"resuming from step {7 * epoch} " in printed
    os.kill(group[0].pid, signal.SIGTERM)
    texts = outputs(group)
    assert [process.returncode for process in group] == [128 + signal.SIGTERM] * 4, texts
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert np.isfinite(rows[-1]["train_loss"])
