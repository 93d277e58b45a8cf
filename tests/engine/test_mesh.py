"""One device, several with jit and several with pmap compute the same training steps.

In float64, so that only the arithmetic of another program can differ, not its rounding. Eight
devices once, four elsewhere; each program is compiled once for all tests.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.engine.dispatch import CompiledSteps
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, TrainState, init_state
from flax_resnet.engine.steps import make_normalize, make_train_step
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.optim.optimizers import OPTIMIZERS

SHAPE = (8, 8, 3)
MODEL = ResNet(
    Design((1,), (8,), (3,), (1,), pool_size=8), 10, dtype=jnp.float64, param_dtype=jnp.float64
)
STEP = make_train_step(
    MODEL,
    OPTIMIZERS["adam"](),
    optax.constant_schedule(1e-3),
    make_normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), jnp.float64),
)
MODES = [(mode, batch_norm) for mode in ("jit", "pmap") for batch_norm in ("global", "device")]


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def make_data(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num, *SHAPE), dtype=np.uint8)
    return images, rng.integers(0, 10, num).astype(np.int32)


@functools.cache
def initial_state() -> TrainState:
    return init_state(MODEL, OPTIMIZERS["adam"](), SHAPE, seed=0)


@functools.cache
def compiled(
    mode: Any = "jit", batch_norm: Any = "global", num_devices: int = 1
) -> tuple[DataParallel, CompiledSteps]:
    parallel = DataParallel(mode, batch_norm, jax.devices()[:num_devices])
    return parallel, parallel.compile_train(STEP)


def train(*key: Any, data: list[tuple[np.ndarray, np.ndarray]], num_steps: int = 1) -> Any:
    """State and sums after `num_steps` equal batches of each data, taken in one dispatch each."""
    parallel, steps = compiled(*key)
    state, sums = parallel.replicate((initial_state(), MetricSums.zeros(jnp.float64)))
    for arrays in data:
        chunk = parallel.place(*(a.reshape(num_steps, -1, *a.shape[1:]) for a in arrays))
        state, sums = steps(state, sums, chunk)
    return jax.device_get((state, sums))


def worst_difference(a: Any, b: Any) -> float:
    """The largest relative difference |x - y| / |x| (Euclidean norms) between two trees' leaves.

    Not element by element: Adam divides a gradient by its own size, so that where one is nearly
    zero its rounding shows whole in that one weight.
    """

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        x, y = np.ravel(x), np.ravel(y)
        return float(np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(difference, a, b)))


@pytest.mark.parametrize(
    "key", [("jit", "global", 8), ("pmap", "global", 4), ("pmap", "global", 1)], ids=str
)
def test_20_steps_are_those_of_one_device(key):
    data = [make_data(16, seed) for seed in range(20)]
    assert worst_difference(train(data=data), train(*key, data=data)) < 1e-9


@pytest.mark.parametrize(("mode", "batch_norm"), MODES)
def test_a_batch_that_does_not_divide_gives_the_result_of_one_device(mode, batch_norm):
    data = [make_data(18)]
    assert worst_difference(train(data=data), train(mode, batch_norm, 4, data=data)) < 1e-9


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_batches_that_divide_and_that_do_not_follow_each_other(mode):
    data = [make_data(16, 0), make_data(18, 1), make_data(16, 2)]
    assert worst_difference(train(data=data), train(mode, "global", 4, data=data)) < 1e-9


def test_batch_norm_per_device_is_the_same_with_jit_and_pmap_and_differs_from_global():
    data = [make_data(16)]
    a, b = (train(mode, "device", 4, data=data) for mode in ("jit", "pmap"))
    assert worst_difference(a, b) < 1e-9
    assert worst_difference(a, train(data=data)) > 1e-3


@pytest.mark.parametrize(("group", "equal"), [(4, "global"), (1, "device")])
def test_batch_norm_per_group_of_all_devices_is_global_and_of_one_per_device(group, equal):
    data = [make_data(16)]
    a, b = (train("jit", batch_norm, 4, data=data) for batch_norm in (group, equal))
    assert worst_difference(a, b) < 1e-9


@pytest.mark.parametrize(("batch_norm", "groups"), [("device", 4), (2, 2)])
def test_batch_norm_per_device_or_group_averages_their_statistics(batch_norm, groups):
    images, labels = make_data(16)
    state, _ = train("jit", batch_norm, 4, data=[(images, labels)])
    parts = [train(data=[(images[p], labels[p])])[0] for p in np.split(np.arange(16), groups)]
    # Only the stem's statistics: deeper ones are the same function of it, no simple average.
    for name in ("mean", "var"):
        averaged = np.mean([part.batch_stats["stem_norm"][name] for part in parts], 0)
        np.testing.assert_allclose(
            state.batch_stats["stem_norm"][name], averaged, rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("key", [(*m, 4) for m in MODES] + [("jit", "global", 1)], ids=str)
def test_many_steps_in_a_dispatch_equal_as_many_dispatches(key):
    images, labels = make_data(3 * 16)
    one_by_one = train(*key, data=[(images[p], labels[p]) for p in np.split(np.arange(48), 3)])
    at_once = train(*key, data=[(images, labels)], num_steps=3)
    assert int(at_once[0].step) == int(at_once[1].batches) == 3
    assert int(at_once[1].images) == 48
    assert worst_difference(one_by_one, at_once) < 1e-9


def test_a_chunk_knows_its_steps_its_batch_and_whether_it_is_split():
    parallel, _ = compiled("pmap", "global", 4)
    images, labels = make_data(3 * 16)
    chunk = parallel.place(images.reshape(3, 16, *SHAPE), labels.reshape(3, 16))
    assert (chunk.steps, chunk.batch_size, chunk.split) == (3, 16, True)
    assert not parallel.place(images[None, :18], labels[None, :18]).split
