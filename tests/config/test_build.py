"""A recipe of a config is the step that its names stand for."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.config.build import (
    abstract_checkpoint,
    build_hparams,
    build_model,
    build_optimizer,
    build_schedule,
    build_train_step,
    peak_learning_rate,
)
from flax_resnet.config.load import load_config, validate
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, TrainState, init_state
from flax_resnet.engine.steps import TrainStep, make_normalize, make_train_step
from flax_resnet.optim.groups import decay_mask
from flax_resnet.optim.optimizers import OPTIMIZERS
from flax_resnet.process.errors import UserError
from tests.conftest import tiny_config

STEPS_PER_EPOCH = 7  # of tiny_config, which has 2 epochs
BATCH = (
    np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8),
    np.arange(4, dtype=np.int32),
)
NETWORK = {
    "design.stage_sizes": (1,),
    "design.stage_channels": (2,),
    "design.kernel_sizes": (3,),
    "design.shortcut_kernels": (1,),
}


def take(config: Any, step: int, train_step: Any = None) -> tuple[TrainState, float]:
    """The state after one step from a fresh state at `step`, and the loss."""
    state = init_state(build_model(config, 10), build_optimizer(config), (8, 8, 3), seed=0)
    state = dataclasses.replace(state, step=jnp.int32(step))
    train_step = train_step or build_train_step(config, 10, STEPS_PER_EPOCH)
    state, sums = jax.jit(train_step)(state, MetricSums.zeros(), BATCH)
    return state, float(sums.loss)


@pytest.mark.parametrize(
    ("recipe", "optimizer", "step", "fraction"),
    [
        (
            {"optimizer": "adamw", "weight_decay": 0.5, "schedule": "cosine", "warmup_epochs": 1.0},
            OPTIMIZERS["adamw"](weight_decay=0.5),
            10,  # 3 of the 7 steps after the warm-up
            (1 + math.cos(math.pi * 3 / 7)) / 2,
        ),
        (
            {"optimizer": "nesterov", "weight_decay": 0.5, "decay": "kernels", "momentum": 0.7}
            | {"schedule": "one_cycle"},
            OPTIMIZERS["nesterov"](momentum=0.7, weight_decay=0.5, mask=decay_mask),
            0,
            1 / 25,
        ),
        (
            {"optimizer": "momentum", "schedule": "step", "step_factor": 0.2},
            OPTIMIZERS["momentum"](),
            7,  # half of the run
            0.2,
        ),
    ],
    ids=lambda value: value["optimizer"] if isinstance(value, dict) else "",
)
def test_a_recipe_takes_its_optimizers_step_at_its_schedules_rate(
    recipe, optimizer, step, fraction
):
    config = tiny_config(learning_rate=0.1, **NETWORK, **recipe)
    by_hand = make_train_step(
        build_model(config, 10),
        optimizer,
        optax.constant_schedule(0.1 * fraction),
        make_normalize(config.mean, config.std),
    )
    taken, expected = take(config, step)[0], take(config, step, by_hand)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        taken.params,
        expected.params,
    )
    plain = take(tiny_config(learning_rate=0.1, **NETWORK), step)[0]
    assert not np.allclose(
        taken.params["head"]["kernel"], plain.params["head"]["kernel"], atol=1e-3
    )


def test_the_stems_bias_is_trained_for_its_epochs():
    config = tiny_config(
        **NETWORK, **{"design.stem": "whiten"}, optimizer="nesterov", stem_bias_epochs=1
    )
    for step, moves in [(6, True), (7, False)]:
        before = init_state(build_model(config, 10), build_optimizer(config), (8, 8, 3), seed=0)
        old, new = before.params["stem_whiten"], take(config, step)[0].params["stem_whiten"]
        assert bool((old["bias"] != new["bias"]).any()) == moves, step
        np.testing.assert_array_equal(old["kernel"], new["kernel"])


def test_without_the_gradient_of_the_stems_bias_the_rest_moves_alike_for_less():
    config = tiny_config(
        **NETWORK, **{"design.stem": "whiten"}, optimizer="nesterov", stem_bias_epochs=1
    )
    steps = [
        build_train_step(config, 10, STEPS_PER_EPOCH, holds_stem_bias=holds)
        for holds in (False, True)
    ]
    every, held = (take(config, 7, step)[0].params for step in steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), every, held)
    start = init_state(build_model(config, 10), build_optimizer(config), (8, 8, 3), seed=0)

    def flops(step: TrainStep) -> float:
        analysis = jax.jit(step).lower(start, MetricSums.zeros(), BATCH).cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    assert flops(steps[1]) < 0.95 * flops(steps[0])


def test_a_slow_step_after_the_run_is_refused():
    config = tiny_config(lookahead_steps=1000)
    with pytest.raises(UserError, match="lookahead_steps is 1000, more than the run's"):
        build_train_step(config, 10, STEPS_PER_EPOCH)


def test_lookaheads_slow_weights_are_gone_on_from():
    config = tiny_config(**NETWORK, optimizer="sgd", learning_rate=0.1, lookahead_steps=5)
    plain = tiny_config(**NETWORK, optimizer="sgd", learning_rate=0.1)
    train_step = build_train_step(config, 10, STEPS_PER_EPOCH)
    start = init_state(
        build_model(config, 10), build_optimizer(config), (8, 8, 3), seed=0, averages=True
    )
    for step, is_due in [(3, False), (4, True)]:
        state = dataclasses.replace(start, step=jnp.int32(step))
        new, _ = jax.jit(train_step)(state, MetricSums.zeros(), BATCH)
        fast = dict(take(plain, step)[0].variables)
        half = jax.tree.map(lambda a, b: (a + b) / 2, dict(start.variables), fast)
        slow, going_on = (half, half) if is_due else (dict(start.variables), fast)
        for ours, expected in [(new.averages, slow), (dict(new.variables), going_on)]:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


def test_bfloat16_computes_what_float32_does_to_its_precision():
    full, loss = take(tiny_config(**NETWORK), 0)
    half, rounded = take(tiny_config(**NETWORK, dtype="bfloat16"), 0)
    assert rounded != loss and rounded == pytest.approx(loss, rel=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves((half.params, half.batch_stats))} == {
        np.dtype(np.float32)
    }
    assert jax.tree.structure(half) == jax.tree.structure(full)


def test_another_number_needs_no_other_program():
    """A sweep of these compiles once, and one in a new process finds its program in the cache."""

    def program(seed: int, **changes: float) -> str:
        config = tiny_config(**NETWORK, seed=seed, optimizer="nesterov", **changes)
        parallel = DataParallel(devices=jax.devices()[:1])
        steps = parallel.compile_train(build_train_step(config, 10, STEPS_PER_EPOCH))
        chunk = parallel.place(*(array[None] for array in BATCH))
        return steps.lower(*abstract_checkpoint(config, 10, (8, 8, 3)), chunk).as_text()

    numbers = {"learning_rate": 0.1, "momentum": 0.4, "weight_decay": 1e-4, "epsilon": 1e-8}
    first = program(0, **numbers)
    assert first == program(1, **{name: 2 * value for name, value in numbers.items()})
    assert first != program(0, **numbers, warmup_epochs=1.0)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)])
def test_the_learning_rate_follows_the_batch(scaling, factor):
    config = tiny_config(
        batch_size=64, tuned_batch_size=16, learning_rate=0.25, learning_rate_scaling=scaling
    )
    assert peak_learning_rate(config) == 0.25 * factor
    assert build_schedule(config, STEPS_PER_EPOCH)(0) == np.float32(0.25 * factor)
    assert build_hparams(config)["learning_rate"] == 0.25 * factor


def test_the_batch_that_a_recipe_was_tuned_for_is_that_of_its_file():
    overrides = ["--config.batch_size=512", "--config.learning_rate_scaling=linear"]
    config = load_config("imagenet_resnet50", overrides)
    assert (config.tuned_batch_size, peak_learning_rate(config)) == (256, 0.2)
    assert load_config("imagenet_resnet50", overrides[:1]).tuned_batch_size is None
    with pytest.raises(UserError) as refused:
        config.tuned_batch_size = None
        validate(config)
    assert refused.value.field == "config.tuned_batch_size"
