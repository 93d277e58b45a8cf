"""Real tiny runs on real digits: files, metrics, resuming, stopping."""

import errno
import json
import logging
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from flax_resnet.engine.processes import Processes
from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.hooks import Hook, Trace
from flax_resnet.training.loop import Outcome, opened, train_and_evaluate
from flax_resnet.training.progress import Progress
from flax_resnet.training.session import Session
from tests.conftest import ROOT, tiny_config

STEPS = 7  # an epoch of tiny_config


def rows_without_clock(workdir: Path) -> list[dict[str, Any]]:
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in rows]


def assert_same_weights(a: Path, b: Path) -> None:
    x, y = (load_trained(run).variables for run in (a, b))
    jax.tree.map(np.testing.assert_array_equal, x, y)


class StopAfter(StopRequest):
    """Asks for a stop once that many dispatches, of training or evaluation, are out."""

    def __init__(self, dispatches: int) -> None:
        super().__init__()
        self._left = dispatches

    def __bool__(self) -> bool:
        """Asked before each dispatch."""
        if self._left == 0:
            self.request(signal.SIGTERM)
        self._left -= 1
        return super().__bool__()


def test_a_run_leaves_its_files(tiny_run):
    names = {p.name for p in tiny_run.iterdir()}
    assert names >= {
        "config.json", "dataset.json", "metrics.jsonl", "summary.txt", "checkpoints",
        "tensorboard", "loss.png", "accuracy.png",
    }  # fmt: skip
    assert json.loads((tiny_run / "config.json").read_text())["batch_size"] == 32
    data = RunFolder(tiny_run).data_info()
    assert data.class_names == tuple("0123456789")
    assert (data.train_images, data.test_images, data.image_shape) == (224, 90, (32, 32, 3))
    assert {p.name for p in (tiny_run / "checkpoints").iterdir()} == {"7", "14"}
    assert not any(p.stat().st_mode & 0o111 for p in tiny_run.iterdir() if p.is_file())


def test_each_epoch_has_a_record(tiny_run):
    rows = read_metrics(tiny_run / "metrics.jsonl")
    assert [(r["epoch"], r["step"]) for r in rows] == [(1, 7), (2, 14)]
    for row in rows:
        assert set(row) == {
            "epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
            "learning_rate", "seconds", "images_per_second",
        }  # fmt: skip
        # Fractions of 224 and 90 images.
        assert row["train_accuracy"] * 224 == pytest.approx(round(row["train_accuracy"] * 224))
        assert row["test_accuracy"] * 90 == pytest.approx(round(row["test_accuracy"] * 90))
        assert row["images_per_second"] == pytest.approx(224 / row["seconds"])
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_tensorboard_events_hold_the_same_metrics(tiny_run):
    found = {}
    for path in (tiny_run / "tensorboard").glob("events.out.tfevents.*"):
        for event in read_events(path):
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    for row in read_metrics(tiny_run / "metrics.jsonl"):
        assert found["accuracy/test", row["step"]] == pytest.approx(row["test_accuracy"])
        assert found["loss/train", row["step"]] == pytest.approx(row["train_loss"])


def read_events(path: Path) -> Iterator[Any]:
    """The records of an event file: length, its checksum, that many bytes, their checksum."""
    data = path.read_bytes()
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4


def test_a_finished_run_says_so_and_trains_nothing(tiny_run, one_device, log_lines):
    before = (tiny_run / "metrics.jsonl").read_bytes()
    outcome = train_and_evaluate(tiny_config(), tiny_run, devices=one_device)
    assert outcome.signum is None and "is finished" in log_lines[0]
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


# Steps until the stop in each call: 7 of an epoch and 3 of its evaluation make 10.
@pytest.mark.parametrize(("every", "stops"), [(None, [3, 5]), (2, [4, 3, 9]), (3, [8, 2])], ids=str)
def test_stopped_and_resumed_equals_uninterrupted(
    every, stops, tiny_run, tmp_path, one_device, log_lines
):
    config = tiny_config(**({"checkpoint_every_steps": every} if every else {}))
    workdir = tmp_path / "run"
    saved = 0
    for calls in stops:
        outcome = train_and_evaluate(config, workdir, devices=one_device, stop=StopAfter(calls))
        assert outcome.signum == signal.SIGTERM
        assert outcome.step > saved or calls < STEPS
        saved = outcome.step
    outcome = train_and_evaluate(config, workdir, devices=one_device)
    assert outcome.signum is None
    assert any(line.startswith(f"resuming from step {saved} ") for line in log_lines)
    assert rows_without_clock(workdir) == rows_without_clock(tiny_run)
    assert_same_weights(workdir, tiny_run)


def test_stopped_between_dispatches_of_many_steps_and_resumed_equals_uninterrupted(
    tmp_path, one_device, log_lines
):
    # 6 full steps and a short one: 4 dispatches.
    config = tiny_config(steps_per_dispatch=2, train_images=200)
    train_and_evaluate(config, tmp_path / "whole", devices=one_device)
    outcome = train_and_evaluate(config, tmp_path / "parts", devices=one_device, stop=StopAfter(2))
    assert (outcome.signum, outcome.step) == (signal.SIGTERM, 4)
    train_and_evaluate(config, tmp_path / "parts", devices=one_device)
    assert rows_without_clock(tmp_path / "parts") == rows_without_clock(tmp_path / "whole")
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("num_epochs", [1, 2], ids=["too short a run to trace", "traced"])
def test_a_profile_is_written(num_epochs, tmp_path, one_device, log_lines):
    config = tiny_config(num_epochs=num_epochs, train_images=32 if num_epochs == 1 else 96)
    train_and_evaluate(config, tmp_path / "run", devices=one_device, hooks=[Trace(tmp_path / "p")])
    traces = list((tmp_path / "p").rglob("perfetto_trace.json.gz"))
    assert bool(traces) == (num_epochs == 2)
    assert any(
        ("no profile" in line) == (num_epochs == 1) for line in log_lines if "profile" in line
    )


def test_ctrl_c_before_the_first_step_saves_nothing_and_loses_nothing(
    tmp_path, one_device, tiny_run, pythons_signals
):
    class StopWhenCompiled(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("compiled"):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)  # Python's own handler raises here

    workdir = tmp_path / "run"
    handler = StopWhenCompiled()
    logging.getLogger("flax_resnet").addHandler(handler)
    logging.getLogger("flax_resnet").setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(
                tiny_config(), workdir, devices=one_device, stop=StopRequest(listens=True)
            )
    finally:
        logging.getLogger("flax_resnet").removeHandler(handler)
    assert not list((workdir / "checkpoints").iterdir())
    train_and_evaluate(tiny_config(), workdir, devices=one_device)
    assert_same_weights(workdir, tiny_run)


def test_a_line_logged_but_not_saved_is_made_again(tmp_path, tiny_run, one_device):
    """A crash between an epoch's line and its checkpoint: the line comes once, as it was."""
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "14")
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "st')
    train_and_evaluate(tiny_config(), workdir, devices=one_device)
    assert rows_without_clock(workdir) == rows_without_clock(tiny_run)
    assert_same_weights(workdir, tiny_run)


def test_a_line_logged_for_a_checkpoint_that_lacks_it_comes_once(tmp_path, tiny_run, one_device):
    """A stop within the evaluation, then a crash between the epoch's line and its checkpoint."""
    workdir = tmp_path / "run"
    train_and_evaluate(tiny_config(), workdir, devices=one_device, stop=StopAfter(8))
    first_line = (tiny_run / "metrics.jsonl").read_text().splitlines()[0]
    (workdir / "metrics.jsonl").write_text(first_line + "\n")
    train_and_evaluate(tiny_config(), workdir, devices=one_device)
    assert rows_without_clock(workdir) == rows_without_clock(tiny_run)


def test_winograd_stopped_and_resumed_equals_uninterrupted(tmp_path, one_device, log_lines):
    changes = {"design.stage_channels": (16, 16), "conv": "winograd", "num_epochs": 1}
    config = tiny_config(**changes)
    train_and_evaluate(config, tmp_path / "whole", devices=one_device)
    assert any("winograd convolutions" in line for line in log_lines)
    assert train_and_evaluate(
        config, tmp_path / "parts", devices=one_device, stop=StopAfter(3)
    ).signum
    train_and_evaluate(config, tmp_path / "parts", devices=one_device)
    assert rows_without_clock(tmp_path / "parts") == rows_without_clock(tmp_path / "whole")
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


def test_more_epochs_go_on_from_a_finished_run(tmp_path, tiny_run, one_device):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    train_and_evaluate(tiny_config(num_epochs=3), workdir, devices=one_device)
    rows = rows_without_clock(workdir)
    assert [r["epoch"] for r in rows] == [1, 2, 3] and rows[:2] == rows_without_clock(tiny_run)
    with pytest.raises(UserError, match="num_epochs=3, and now it is 2"):
        train_and_evaluate(tiny_config(), workdir, devices=one_device)


def test_a_part_of_a_run_is_the_start_of_the_whole_one(tmp_path, one_device):
    config = tiny_config(schedule="cosine")
    for until_epoch in (1, 1, None):
        train_and_evaluate(config, tmp_path / "parts", devices=one_device, until_epoch=until_epoch)
        rows = rows_without_clock(tmp_path / "parts")
        assert len(rows) == (until_epoch or 2)
    train_and_evaluate(config, tmp_path / "whole", devices=one_device)
    assert rows == rows_without_clock(tmp_path / "whole")


def test_a_part_that_a_run_is_beyond_is_finished(tmp_path, one_device, log_lines):
    """Stopped in the second epoch: to end after the first takes no step, and compiles nothing."""
    config = tiny_config()
    steps, evaluations = 7, 3
    stop = StopAfter(steps + evaluations + 2)
    stopped = train_and_evaluate(config, tmp_path / "run", devices=one_device, stop=stop)
    assert stopped.step > steps
    log_lines.clear()
    outcome = train_and_evaluate(config, tmp_path / "run", devices=one_device, until_epoch=1)
    assert outcome == Outcome(None, stopped.step)
    assert not any("compiled" in line for line in log_lines)


def test_another_config_is_refused_naming_field_and_values(tiny_run):
    with pytest.raises(UserError, match="config.batch_size=32, and now it is 16"):
        train_and_evaluate(tiny_config(batch_size=16), tiny_run)


def test_other_images_are_refused(tmp_path, one_device):
    path = tmp_path / "set.npz"

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        arrays: dict[str, Any] = {}
        for split, num in (("train", 64), ("test", 16)):
            arrays[f"x_{split}"] = rng.integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(num) % 4
        np.savez(path, **arrays)

    config = tiny_config(dataset=path, num_epochs=1, train_images=64, test_images=16)
    write(0)
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    config.num_epochs = 2
    write(1)
    with pytest.raises(UserError, match="are not those that"):
        train_and_evaluate(config, tmp_path / "run", devices=one_device)


@pytest.mark.parametrize(
    ("changes", "same"), [({"checkpoint_every_steps": 50}, False), ({"data_dir": "/b"}, True)]
)
def test_processes_with_other_configs_are_refused(changes, same, tmp_path):
    """Any field that decides when all of them save, compile or communicate."""
    seen = []

    class Noting(Processes):
        def all_have(self, value: int) -> bool:
            seen.append(value)
            return True

    for config in (tiny_config(), tiny_config(**changes)):
        with opened(RunFolder(tmp_path), Noting(), config):
            pass
    assert (seen[0] == seen[2]) == same


def test_processes_to_be_found_are_refused_where_none_was_joined(tmp_path):
    with pytest.raises(UserError) as refused:
        train_and_evaluate(tiny_config(distributed="auto"), tmp_path / "run")
    assert refused.value.field == "config.distributed"
    assert not (tmp_path / "run").exists()


def test_a_second_process_on_a_workdir_is_refused(tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(UserError) as caught:
        train_and_evaluate(tiny_config(), tmp_path)
    assert caught.value.code == "busy"


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(UserError, match="cannot be locked") as caught:
        train_and_evaluate(tiny_config(), tmp_path / "run")
    assert caught.value.code == "unwritable"


class Replace(Hook):
    """Deletes the folder of a run after its first dispatch, and begins another one there."""

    def after_dispatch(self, session: Session, progress: Progress) -> None:
        if progress.step == 1:
            shutil.rmtree(session.run.path)
            session.run.path.mkdir()
            (session.run.path / ".lock").touch()


def test_nothing_is_written_to_a_workdir_that_was_replaced(tmp_path, one_device):
    workdir = tmp_path / "run"
    with pytest.raises(UserError) as caught:
        train_and_evaluate(tiny_config(), workdir, devices=one_device, hooks=[Replace()])
    assert caught.value.code == "conflict" and str(workdir) in str(caught.value)
    assert [path.name for path in workdir.iterdir()] == [".lock"]


def test_a_validation_split_is_held_out_and_ranks_the_best(tmp_path, one_device):
    config = tiny_config(validation_split=64, num_epochs=4, learning_rate=0.03)
    workdir = tmp_path / "run"
    train_and_evaluate(config, workdir, devices=one_device)
    rows = read_metrics(workdir / "metrics.jsonl")
    assert {"val_loss", "val_accuracy"} <= set(rows[0])
    assert rows[0]["step"] == 5  # 160 images by 32
    best = max(rows, key=lambda r: r["val_accuracy"])
    # `best` is the first of equals or a later one: its accuracy tells.
    step = load_trained(workdir, "best").step
    assert {r["step"]: r["val_accuracy"] for r in rows}[step] == best["val_accuracy"]
    assert load_trained(workdir).step == rows[-1]["step"]


def test_without_a_validation_split_there_is_no_best(tiny_run):
    with pytest.raises(UserError, match="validation_split"):
        load_trained(tiny_run, "best")


def test_init_from_keeps_all_but_the_head_where_classes_differ(
    tmp_path, tiny_run, one_device, log_lines
):
    rng = np.random.default_rng(0)
    path = tmp_path / "letters.npz"
    np.savez(
        path,
        x_train=rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8),
        y_train=np.arange(32) % 3,
        x_test=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8),
        y_test=np.arange(8) % 3,
        class_names=np.array(["a", "b", "c"]),
    )
    # A learning rate so small that the weights stay where they started.
    config = tiny_config(
        dataset=path, init_from=tiny_run, num_epochs=1, learning_rate=1e-12, optimizer="sgd",
        train_images=32, test_images=8,
    )  # fmt: skip
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    assert any("all weights but the head's" in line for line in log_lines)
    old, new = (load_trained(run) for run in (tiny_run, tmp_path / "run"))
    assert new.data.class_names == ("a", "b", "c")
    for name, weights in old.variables["params"].items():
        if name != "head":
            jax.tree.map(np.testing.assert_array_equal, weights, new.variables["params"][name])
    assert new.variables["params"]["head"]["kernel"].shape[-1] == 3


def test_init_from_is_refused_once_a_run_has_begun(tiny_run):
    before = (tiny_run / "config.json").read_bytes()
    with pytest.raises(UserError) as caught:
        train_and_evaluate(tiny_config(init_from="elsewhere"), tiny_run)
    assert caught.value.field == "config.init_from"
    assert (tiny_run / "config.json").read_bytes() == before


def test_init_from_a_file_says_what_is_needed(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"w.pt is a file: a run's folder"):
        train_and_evaluate(tiny_config(init_from=tmp_path / "w.pt"), tmp_path / "run")


def test_init_from_another_design_is_refused(tmp_path, tiny_run):
    config = tiny_config(init_from=tiny_run, **{"design.stage_channels": (4, 12)})
    with pytest.raises(UserError, match="config.init_from: .* need the same design"):
        train_and_evaluate(config, tmp_path / "run")


def test_a_run_is_the_same_with_pmap_on_8_devices(tmp_path, tiny_run):
    train_and_evaluate(tiny_config(num_epochs=1, parallel="pmap"), tmp_path / "run")
    (row,), first = rows_without_clock(tmp_path / "run"), rows_without_clock(tiny_run)[0]
    assert row == pytest.approx(first, rel=1e-3)


def test_batch_norm_per_device_is_another_run_and_the_same_with_pmap(tmp_path, tiny_run):
    loss = {"global": rows_without_clock(tiny_run)[0]["train_loss"]}
    for mode in ("jit", "pmap"):
        config = tiny_config(num_epochs=1, parallel=mode, batch_norm="device")
        train_and_evaluate(config, tmp_path / mode, devices=jax.devices()[:2])
        loss[mode] = rows_without_clock(tmp_path / mode)[0]["train_loss"]
    assert abs(loss["jit"] - loss["pmap"]) < 0.1 * abs(loss["jit"] - loss["global"]), loss


def test_drop_last_with_too_few_images_is_refused(tmp_path):
    config = tiny_config(drop_last=True, train_images=20)
    with pytest.raises(UserError, match="config.drop_last leaves no step"):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_train_py_saves_on_a_signal_and_goes_on(signum, code, tmp_path):
    config = tiny_config()
    fields = ("train_images", "test_images", "batch_size")
    command = [
        sys.executable, "train.py", "--config", "configs/quickstart.py",
        "--workdir", str(tmp_path / "run"), "--config.num_epochs=500",
        "--config.design.stage_channels=(4,8)", "--config.design.stage_sizes=(1,1)",
        "--config.design.kernel_sizes=(3,3)", "--config.design.shortcut_kernels=(1,1)",
        *(f"--config.{field}={config[field]}" for field in fields),
    ]  # fmt: skip
    output = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith("epoch 1/"):
                process.send_signal(signum)
    assert process.returncode == code, output
    saved = re.search(r"saved at step (\d+) .* run the same command again", output[-1])
    assert saved, output[-3:]

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(f"resuming from step {saved[1]} " in line for line in process.stdout)
        process.kill()


def test_an_error_once_the_workdir_is_open_is_one_line(tmp_path):
    """Nothing of orbax's background work shows when the program ends at once."""
    command = [
        sys.executable, "train.py", "--config", "configs/quickstart.py",
        "--config.dataset=missing.npz", "--workdir", str(tmp_path / "run"),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "missing.npz" in result.stderr
