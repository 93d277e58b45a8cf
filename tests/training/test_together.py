"""Runs that are trained as one program, on real digits: equal to runs alone, stopped, resumed."""

import dataclasses
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training import session
from flax_resnet.training.loop import train_and_evaluate
from flax_resnet.training.together import check_together, train_together
from tests.conftest import tiny_config
from tests.training.test_loop import StopAfter, assert_same_weights, rows_without_clock
from tests.training.test_non_finite import exploding

SEEDS = (3, 4)
# 6 steps an epoch; each run holds out other images.
# Small images, as XLA's grouped convolutions are slow on a CPU.
SMALL = {"image_size": 8, "design.pool_size": 0}
CHANGES = SMALL | {"conv": "auto", "validation_split": 32, "design.stochastic_depth": 0.5}


def configs(**changes: Any) -> list[ConfigDict]:
    return [tiny_config(**(CHANGES | changes), seed=seed) for seed in SEEDS]


def folders(out: Path) -> list[Path]:
    return [out / f"seed{seed}" for seed in SEEDS]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, one_device: list[Any]) -> Path:
    """The folder of two finished runs; not to be changed."""
    out = tmp_path_factory.mktemp("together")
    train_together(configs(), folders(out), devices=one_device)
    return out


def resume(out: Path, devices: Sequence[Any], stop: Any = None, **changes: Any) -> None:
    train_together(configs(**changes), folders(out), devices=devices, stop=stop)


def assert_same_runs(a: Path, b: Path) -> None:
    for x, y in zip(folders(a), folders(b), strict=True):
        assert rows_without_clock(x) == rows_without_clock(y)
        assert_same_weights(x, y)


def test_a_run_is_what_it_is_alone_and_not_the_other(both, tmp_path, one_device):
    config, together = configs(conv="native")[1], folders(both)[1]
    train_and_evaluate(config, tmp_path, devices=one_device)
    rows = zip(rows_without_clock(together), rows_without_clock(tmp_path), strict=True)
    assert all(ours == pytest.approx(others, rel=1e-4) for ours, others in rows)
    ours, others, alone = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(load_trained(run).variables)])
        for run in (together, folders(both)[0], tmp_path)
    )
    assert np.linalg.norm(ours - alone) < 1e-4 * np.linalg.norm(alone)
    assert np.linalg.norm(ours - others) > 0.1 * np.linalg.norm(alone)


def test_each_run_has_its_files_and_records_what_computed_it(both):
    for folder in folders(both):
        assert {"loss.png", "accuracy.png", "tensorboard", "summary.txt"} <= {
            path.name for path in folder.iterdir()
        }
        arithmetic = RunFolder(folder).arithmetic()
        assert (arithmetic.conv, arithmetic.together) == ("native", SEEDS)
        assert RunFolder(folder).config().conv == "auto"


def test_stopped_and_resumed_equals_uninterrupted(both, tmp_path, one_device):
    for calls in (3, 7):  # within an epoch, and after the evaluation of one of the runs
        stop = StopAfter(calls)
        resume(tmp_path, one_device, stop)
        assert stop.signum == signal.SIGTERM
        places = {newest(folder) for folder in folders(tmp_path)}
        assert len(places) == 1
    resume(tmp_path, one_device)
    assert_same_runs(tmp_path, both)


def newest(run: Path) -> str:
    names = [path.name for path in (run / "checkpoints").iterdir()]
    return max(names, key=lambda name: (int(name.split("-")[0]), "-" not in name))


@pytest.mark.parametrize("every", [10, 2])
def test_after_a_kill_between_two_saves_the_runs_go_back_to_the_same_step(
    every, both, tmp_path, one_device, log_lines
):
    """As a kill leaves them: a run lacks its newest checkpoint, its only one or the second."""
    resume(tmp_path, one_device, StopAfter(3), checkpoint_every_steps=every)
    behind = tmp_path / f"seed{SEEDS[1]}" / "checkpoints"
    assert sorted(path.name for path in behind.iterdir()) == (["3"] if every > 3 else ["2", "3"])
    shutil.rmtree(behind / "3")
    resume(tmp_path, one_device)
    assert any("resuming from step 2" in line for line in log_lines) == (every == 2)
    assert_same_runs(tmp_path, both)
    assert not any("not bit-for-bit" in line for line in log_lines)


def test_a_kill_between_the_last_saves_trains_the_last_epoch_of_both_again(
    both, tmp_path, one_device
):
    out = Path(shutil.copytree(both, tmp_path / "out"))
    shutil.rmtree(folders(out)[0] / "checkpoints" / "12")
    resume(out, one_device)
    assert_same_runs(out, both)


def test_runs_of_other_partners_stay_where_they_are(both, tmp_path, one_device, log_lines):
    out = Path(shutil.copytree(both, tmp_path / "out"))
    before = [(folder / "metrics.jsonl").read_bytes() for folder in folders(out)]
    third = tiny_config(**CHANGES, seed=5, num_epochs=2)
    train_together([*configs(), third], [*folders(out), out / "seed5"], devices=one_device)
    assert sum("is finished" in line for line in log_lines) == 2
    assert [(folder / "metrics.jsonl").read_bytes() for folder in folders(out)] == before
    assert RunFolder(out / "seed5").arithmetic().together == (5,)
    assert len(read_metrics(out / "seed5" / "metrics.jsonl")) == 2


def test_a_run_that_is_not_finite_stops_all_and_all_are_saved(tmp_path, one_device):
    explosive = [exploding(**SMALL, seed=seed) for seed in SEEDS]
    with pytest.raises(UserError) as stopped:
        train_together(explosive, folders(tmp_path), devices=one_device)
    assert stopped.value.code == "not_finite" and "seed3" in str(stopped.value)
    with pytest.raises(UserError, match=r"is saved in \S+alone") as alone:
        train_and_evaluate(explosive[0], tmp_path / "alone", devices=one_device)
    assert str(alone.value).partition(",")[0] == str(stopped.value).partition(",")[0]
    assert int(newest(tmp_path / "alone")) == int(newest(folders(tmp_path)[0])) > 0
    assert int(newest(folders(tmp_path)[1])) > 0


def broken_state(initial: Callable[..., Any]) -> Callable[..., Any]:
    """`initial`, but with infinite weights for the first seed."""

    def broken(config: ConfigDict, *rest: Any) -> Any:
        state = initial(config, *rest)
        if config.seed != SEEDS[0]:
            return state
        return dataclasses.replace(state, params=jax.tree.map(lambda x: x * np.inf, state.params))

    return broken


def test_after_a_run_that_is_not_finite_the_others_end_as_alone(
    both, tmp_path, one_device, monkeypatch
):
    """It fails in its first step, again in every call."""
    monkeypatch.setattr(session, "_initial_state", broken_state(session._initial_state))
    for _ in range(2):
        with pytest.raises(UserError, match="step 1 .*seed3") as stopped:
            resume(tmp_path, one_device)
        assert stopped.value.code == "not_finite"
        ours, as_both = (rows_without_clock(folders(out)[1]) for out in (tmp_path, both))
        assert len(ours) == len(as_both)
        assert all(a == pytest.approx(b, rel=1e-3) for a, b in zip(ours, as_both, strict=True))


def test_after_an_epoch_of_skipped_steps_the_others_go_on(tmp_path, one_device, monkeypatch):
    monkeypatch.setattr(session, "_initial_state", broken_state(session._initial_state))
    for _ in range(2):
        with pytest.raises(UserError, match="epoch 1: .* of every step") as stopped:
            resume(tmp_path, one_device, on_nan="skip")
        assert stopped.value.code == "not_finite"
    broken, whole = folders(tmp_path)
    assert not (broken / "metrics.jsonl").exists()
    assert [row["epoch"] for row in rows_without_clock(whole)] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "alone", "devices", "field"),
    [
        ({}, False, 1, "--together"),
        ({"parallel": "pmap"}, True, 1, "config.parallel"),
        ({"conv": "winograd"}, True, 1, "config.conv"),
        ({"batch_norm": "device"}, True, 2, "config.batch_norm"),
    ],
)
def test_what_one_program_cannot_do_is_refused(changes, alone, devices, field):
    with pytest.raises(UserError) as refused:
        check_together(tiny_config(**changes), alone=alone, num_devices=devices)
    assert refused.value.field == field and "\n" not in str(refused.value)


def test_what_is_refused_on_several_devices_is_allowed_on_one():
    check_together(tiny_config(batch_norm="device", conv="native"), alone=True, num_devices=1)
