"""Steps whose loss or gradients are not finite, alone and in a training."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from flax_resnet.config.build import build_model, build_optimizer, build_schedule
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.engine.steps import make_train_step
from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import tiny_config
from tests.training.test_loop import StopAfter

IMAGES = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 3), np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3
BAD = np.full_like(IMAGES, 255)


def normalize(images: Any) -> Any:
    """White images are what no real one is: infinite."""
    return jnp.where(images == 255, jnp.inf, images / 255.0)


def take_steps(on_nan: Any, batches: list[np.ndarray]) -> list[tuple[Any, MetricSums]]:
    """State and sums after each batch, on the host."""
    config = tiny_config(optimizer="momentum", momentum=0.9)
    model, optimizer, schedule = (
        build_model(config, 3),
        build_optimizer(config),
        build_schedule(config, 1),
    )
    step = jax.jit(make_train_step(model, optimizer, schedule, normalize, on_nan=on_nan))
    state, sums = init_state(model, optimizer, (8, 8, 3), seed=0), MetricSums.zeros()
    after = []
    for images in batches:
        state, sums = step(state, sums, (images, LABELS))
        after.append(jax.device_get((state, sums)))
    return after


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_stop_changes_nothing_from_the_first_non_finite_step_on():
    good, bad, later = take_steps("stop", [IMAGES, BAD, IMAGES])
    assert int(good[0].step) == 1 and np.isfinite(good[1].loss)
    assert_equal(good[0], bad[0])
    assert_equal(good[0], later[0])
    assert [int(sums.non_finite) for _, sums in (good, bad, later)] == [0, 1, 1]
    assert [int(sums.batches) for _, sums in (good, bad, later)] == [1, 1, 1]
    assert later[1].loss == good[1].loss


def test_skip_leaves_a_non_finite_step_out_and_goes_on():
    good, bad, later = take_steps("skip", [IMAGES, BAD, IMAGES])
    again = take_steps("skip", [IMAGES, IMAGES])[-1]
    assert_equal((good[0].params, good[0].opt_state), (bad[0].params, bad[0].opt_state))
    assert_equal((later[0].params, later[0].batch_stats), (again[0].params, again[0].batch_stats))
    assert [int(state.step) for state, _ in (good, bad, later)] == [1, 2, 3]
    sums = later[1]
    assert (int(sums.non_finite), int(sums.batches), int(sums.images)) == (1, 2, 16)
    assert sums.loss == again[1].loss


def exploding(**changes: object) -> ConfigDict:
    """Each step multiplies the weights by minus 10,000, until a few steps on they overflow."""
    recipe = {"optimizer": "sgd", "learning_rate": 100.0, "weight_decay": 100.0, "num_epochs": 1}
    return tiny_config(**recipe | changes)


def last_finite_step(workdir: Path, config: ConfigDict, devices: list[Any]) -> int:
    """Trains until the error that names the step."""
    with pytest.raises(UserError, match="config.on_nan=skip") as stopped:
        train_and_evaluate(config, workdir, devices=devices)
    found = re.match(
        r"step (\d+) \(epoch 1, step (\d+) of it\): the loss .* of step (\d+), is saved",
        str(stopped.value),
    )
    assert found is not None, stopped.value
    bad, bad_of_epoch, saved = map(int, found.groups())
    assert bad == bad_of_epoch == saved + 1
    return saved


def test_a_training_stops_with_the_state_before_the_step_and_says_which(tmp_path, one_device):
    saved = last_finite_step(tmp_path / "run", exploding(), one_device)
    assert 0 < saved < 6 and load_trained(tmp_path / "run").step == saved
    train_and_evaluate(exploding(), tmp_path / "stopped", devices=one_device, stop=StopAfter(saved))
    assert_equal(
        load_trained(tmp_path / "run").variables, load_trained(tmp_path / "stopped").variables
    )
    # Again: the same step, the same end; nothing is lost.
    assert last_finite_step(tmp_path / "run", exploding(), one_device) == saved


def test_a_run_resumes_without_the_steps(tmp_path, one_device, log_lines):
    saved = last_finite_step(tmp_path / "run", exploding(), one_device)
    train_and_evaluate(exploding(on_nan="skip"), tmp_path / "run", devices=one_device)
    (row,) = read_metrics(tmp_path / "run/metrics.jsonl")
    # What overflowed once does so again: the weights are as they were.
    assert (row["step"], row["skipped_steps"]) == (7, 7 - saved)
    assert np.isfinite(row["train_loss"])
    assert any(f"{7 - saved} steps skipped" in line for line in log_lines)


def test_an_epoch_without_a_finite_step_ends_in_one_line(tmp_path, one_device):
    config = exploding(on_nan="skip", num_epochs=2)
    with pytest.raises(UserError, match="epoch 2: the loss or the new weights of every step"):
        train_and_evaluate(config, tmp_path / "run", devices=one_device)


def test_a_stop_within_a_dispatch_of_many_steps_is_found(tmp_path, one_device):
    config = exploding(steps_per_dispatch=6)
    saved = last_finite_step(tmp_path / "run", config, one_device)
    assert load_trained(tmp_path / "run").step == saved
