import dataclasses
import errno
import gc
import logging
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.process.errors import UserError
from flax_resnet.runs.checkpoints import Checkpoints, Saved
from flax_resnet.runs.manifest import read_manifest, write_manifest


def make_saved(step: int, evaluated: bool = True) -> Saved:
    """A state whose every number is the step."""

    def full(*shape: int) -> jax.Array:
        return jnp.full(shape, float(step))

    state = TrainState(
        jnp.asarray(step), {"kernel": full(300, 7)}, {"mean": full(3)}, {"mu": full(300, 7)}
    )
    return Saved(state, MetricSums.zeros(), seconds=0.5 * step, evaluated=evaluated)


def save_all(folder: Path, accuracies: list[float], keep_best: bool = True) -> None:
    checkpoints = Checkpoints(folder, keep_best=keep_best)
    for step, accuracy in enumerate(accuracies, start=1):
        checkpoints.save(make_saved(step), step, val_accuracy=accuracy)
    checkpoints.close()


def restore(folder: Path, which: Any = "last") -> Saved:
    checkpoints = Checkpoints(folder, keep_best=True, read_only=True)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if which == "last":
        saved = checkpoints.restore(make_saved(0), sharding)
    else:
        variables, step = checkpoints.restore_variables(
            make_saved(0).state.variables, sharding, which
        )
        saved = dataclasses.replace(
            make_saved(0), state=TrainState(jnp.asarray(step), **variables, opt_state=None)
        )
    checkpoints.close()
    return saved


def steps(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_last_two_are_kept(tmp_path):
    save_all(tmp_path, [0.1, 0.2, 0.3, 0.4], keep_best=False)
    assert steps(tmp_path) == {"3", "4"}


def test_the_best_and_the_last_two_are_kept_whatever_is_nan(tmp_path):
    save_all(tmp_path, [0.5, 0.9, 0.8, 0.1, math.nan, 0.2, 0.3])
    assert steps(tmp_path) == {"2", "6", "7"}
    assert int(restore(tmp_path, "best").state.step) == 2
    assert int(restore(tmp_path).state.step) == 7


def test_what_is_saved_comes_back(tmp_path):
    save_all(tmp_path, [0.5, 0.6])
    saved = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, saved.state, make_saved(2).state)
    assert (saved.seconds, saved.evaluated) == (1.0, True)


def test_orbax_does_not_cry_wolf(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        save_all(tmp_path, [0.1, 0.2])
        restore(tmp_path)
        restore(tmp_path, "best")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_step_can_be_saved_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_best=True)
    checkpoints.save(make_saved(1, evaluated=False), 1)
    checkpoints.save(make_saved(1), 1, val_accuracy=0.7)
    checkpoints.close()
    assert restore(tmp_path).evaluated and int(restore(tmp_path, "best").state.step) == 1


def test_arrays_may_be_overwritten_while_they_are_being_written(tmp_path):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep_best=False)
    for step in range(1, 6):
        saved = make_saved(step)
        expected = jax.tree.map(np.array, saved.state)
        checkpoints.save(saved, step)
        state = saved.state
        for _ in range(5):
            state = overwrite(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        jax.tree.map(np.testing.assert_array_equal, restore(tmp_path).state, expected)
    checkpoints.close()


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    with pytest.raises(UserError) as refused:
        restore(tmp_path)
    assert refused.value.code == "missing"


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    save_all(tmp_path, [0.5])
    (tmp_path / "writing-2/arrays").mkdir(parents=True)
    assert int(restore(tmp_path).state.step) == 1  # reading leaves the folder as it is
    assert steps(tmp_path) == {"1", "writing-2"}
    Checkpoints(tmp_path, keep_best=True).close()
    assert steps(tmp_path) == {"1"}


def test_a_step_saved_again_replaces_nothing_before_it_is_complete(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_best=False)
    checkpoints.save(make_saved(1, evaluated=False), 1)
    checkpoints.save(make_saved(1), 1)
    checkpoints.close()
    assert steps(tmp_path) == {"1-not-evaluated", "1"}
    assert restore(tmp_path).evaluated


def test_a_corrupt_checkpoint_is_put_aside_and_the_one_before_it_taken(tmp_path, log_lines):
    save_all(tmp_path, [0.1, 0.2])
    file = next(p for p in (tmp_path / "2/arrays").rglob("*") if p.is_file() and p.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    checkpoints = Checkpoints(tmp_path, keep_best=True)
    latest = checkpoints.latest
    checkpoints.close()
    assert latest is not None and latest.step == 1
    assert file.name in log_lines[0] and "is corrupt" in log_lines[0]
    assert steps(tmp_path) == {"1", "damaged-2"}
    assert int(restore(tmp_path).state.step) == 1


def test_corrupt_checkpoints_alone_are_no_fresh_start(tmp_path):
    save_all(tmp_path, [0.1])
    (tmp_path / "1/manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            _ = Checkpoints(tmp_path, keep_best=True).latest
        assert refused.value.code == "corrupt"


@pytest.mark.stress
def test_saving_again_and_again_leaves_nothing_in_memory(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_best=False)
    saved = make_saved(1)

    def save_twenty() -> int:
        """Memory blocks that Python holds more afterwards."""
        gc.collect()
        before = sys.getallocatedblocks()
        for step in range(20):
            checkpoints.save(saved, step)
            checkpoints.wait()
        gc.collect()
        return sys.getallocatedblocks() - before

    for _ in range(3):  # what is made once, by chance as late as in the second twenty
        save_twenty()
    blocks_a_save = save_twenty() / 20
    checkpoints.close()
    assert blocks_a_save < 10  # 261 in orbax's default format


def test_weights_alone_are_read_whatever_the_optimizer(tmp_path):
    save_all(tmp_path, [0.1])
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    variables = dataclasses.replace(make_saved(0).state, opt_state={"nu": 3}).variables
    with Checkpoints(tmp_path, keep_best=False, read_only=True) as checkpoints:
        found, step = checkpoints.restore_variables(variables, sharding)
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, found, dict(make_saved(1).state.variables))


def test_a_manifest_may_have_fields_of_a_later_version(tmp_path):
    save_all(tmp_path, [0.1])
    about = read_manifest(tmp_path / "1")
    (tmp_path / "1/manifest.json").unlink()
    write_manifest(tmp_path / "1", about | {"weather": "fine"})
    assert int(restore(tmp_path).state.step) == 1
    (tmp_path / "1/manifest.json").unlink()
    write_manifest(tmp_path / "1", about | {"format": 99})
    with pytest.raises(UserError, match="format 99") as refused:
        restore(tmp_path)
    assert refused.value.code == "unknown"


def test_folders_of_other_names_are_left_alone(tmp_path):
    save_all(tmp_path, [0.1])
    (tmp_path / "1-my-backup").mkdir()
    (tmp_path / "writing-nothing").touch()  # of a process killed while it reserved space
    save_all(tmp_path, [0.1, 0.2, 0.3])
    assert steps(tmp_path) == {"2", "3", "1-my-backup"}


def test_a_checkpoint_removed_by_hand_is_passed_over(tmp_path):
    with Checkpoints(tmp_path, keep_best=False) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(make_saved(step), step)
            checkpoints.wait()
            if step == 2:
                shutil.rmtree(tmp_path / "1")
    assert steps(tmp_path) == {"3", "4"}


def test_a_reader_finds_what_a_run_has_saved_since(tmp_path, log_lines):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(tmp_path, keep_best=False) as run:
        run.save(make_saved(1), 1)
        run.wait()
        readers = [Checkpoints(tmp_path, keep_best=False, read_only=True) for _ in range(2)]
        assert readers[1].latest is not None  # checked before it goes
        for step in (2, 3):
            run.save(make_saved(step), step)
            run.wait()
    for reader in readers:
        assert reader.restore_variables(make_saved(0).state.variables, sharding)[1] == 3
    assert not any("corrupt" in line for line in log_lines)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory"), "RESOURCE_EXHAUSTED"),
    ],
)
def test_what_cannot_be_read_is_no_other_network(tmp_path, monkeypatch, error, text):
    save_all(tmp_path, [0.1])

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("flax_resnet.runs.storage.read", fail)
    with pytest.raises((UserError, jax.errors.JaxRuntimeError), match=text):
        restore(tmp_path)


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    save_all(tmp_path, [0.1])
    (tmp_path / "9").mkdir()
    assert int(restore(tmp_path).state.step) == 1


def test_a_checkpoint_of_one_common_file_is_read(tmp_path, monkeypatch):
    # As earlier versions of this program wrote them.
    monkeypatch.setattr("flax_resnet.runs.storage._COMMON_FILE", True)
    save_all(tmp_path, [0.1, 0.2])
    assert list((tmp_path / "2").rglob("manifest.ocdbt"))
    saved, expected = restore(tmp_path), make_saved(2)
    for found, made in zip(
        jax.tree.leaves(saved.state), jax.tree.leaves(expected.state), strict=True
    ):
        np.testing.assert_array_equal(found, made)


def test_another_networks_checkpoint_is_refused_and_stays(tmp_path):
    save_all(tmp_path, [0.1])
    checkpoints = Checkpoints(tmp_path, keep_best=True)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for params, difference in [
        ({"kernel": jnp.zeros((5, 5))}, r"state/params/kernel has shape \(300, 7\), not \(5, 5\)"),
        ({"kernel": jnp.zeros((300, 7)), "bias": jnp.zeros(7)}, "it lacks state/params/bias"),
        ({}, "it also has state/params/kernel"),
    ]:
        other = make_saved(0)
        other.state.params.clear()
        other.state.params.update(params)
        with pytest.raises(UserError, match=difference):
            checkpoints.restore(other, sharding)
    checkpoints.close()
    assert steps(tmp_path) == {"1"}
