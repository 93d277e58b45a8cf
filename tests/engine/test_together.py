"""Several runs in one program take the steps that each would take alone.

In float64, so that only the arithmetic of another program can differ, not its rounding. The network
drops branches and mixes images at random, from each run's seed.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.mixing import mixup
from flax_resnet.engine.state import MetricSums, TrainState, init_state
from flax_resnet.engine.steps import TrainStep, make_normalize, make_train_step
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.optim.optimizers import OPTIMIZERS
from tests.engine.test_mesh import SHAPE, make_data, worst_difference

SEEDS = [0, 7, 2**32 - 1, 8]
STEPS = 10
MODEL = ResNet(
    Design((1,), (4,), (3,), (1,), pool_size=8, stochastic_depth=0.5),
    10,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
)


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def make_step() -> TrainStep:
    normalize = make_normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), jnp.float64)
    return make_train_step(
        MODEL,
        OPTIMIZERS["adam"](),
        optax.constant_schedule(1e-3),
        normalize,
        seed=12345,
        num_classes=10,
        mix=mixup(0.5),
    )


@functools.cache
def start(seed: int) -> TrainState:
    return init_state(MODEL, OPTIMIZERS["adam"](), SHAPE, seed)


def data_of(seed: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of a run's own."""
    return [make_data(size, 100 * seed + step) for step in range(STEPS)]


@functools.cache
def step_alone() -> Any:
    step = make_step()
    return jax.jit(lambda seed, *run: step.function(*run, step.hparams, seed=seed))


@functools.cache
def alone(seed: int, size: int) -> Any:
    """State and sums of a run."""
    state, sums = start(seed), MetricSums.zeros(jnp.float64)
    for batch in data_of(seed, size):
        state, sums = step_alone()(np.uint32(seed), state, sums, batch)
    return jax.device_get((state, sums))


# One device has all runs; four share each batch, if they can; four have a run each.
@pytest.mark.parametrize(
    ("runs", "devices", "size"), [(3, 1, 16), (3, 4, 16), (3, 4, 18), (4, 4, 16)]
)
def test_each_run_is_what_it_is_alone(runs, devices, size):
    seeds = SEEDS[:runs]
    parallel = DataParallel(devices=jax.devices()[:devices])
    steps = parallel.compile_together(make_step(), seeds)
    states = tuple(parallel.replicate(start(seed)) for seed in seeds)
    sums = tuple(parallel.replicate(MetricSums.zeros(jnp.float64)) for _ in seeds)
    for batches in zip(*(data_of(seed, size) for seed in seeds), strict=True):
        chunk = parallel.place(*(array[None] for batch in batches for array in batch))
        states, sums = steps(states, sums, chunk)
    for seed, *found in zip(seeds, *jax.device_get((states, sums)), strict=True):
        assert worst_difference(alone(seed, size), tuple(found)) < 1e-9
