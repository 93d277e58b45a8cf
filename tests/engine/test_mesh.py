"""jit over 8 devices, jit over 1 and pmap compute the same; so does the un-jitted step."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.engine.evaluate import Evaluator
from flax_resnet.engine.mesh import DataParallel, PlacedChunk
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.engine.steps import make_eval_step, make_normalize, make_train_step
from flax_resnet.models.resnet import Design, ResNet

DESIGN = Design((1, 1), (8, 16), (3, 3), (1, 1), pool_size=8)
SHAPE = (16, 16, 3)
NORMALIZE = {
    dtype: make_normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), dtype)
    for dtype in (jnp.float32, jnp.float64)
}


def make_data(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num, *SHAPE), dtype=np.uint8)
    return images, rng.integers(0, 10, num).astype(np.int32)


def make_step(dtype: Any = jnp.float32):
    optimizer = optax.adam(1e-3)

    def model(axis_name: str | None = None) -> ResNet:
        return ResNet(DESIGN, 10, dtype=dtype, param_dtype=dtype, axis_name=axis_name)

    def step(axis_name: str | None, norm_axis_name: str | None):
        return make_train_step(model(norm_axis_name), optimizer, NORMALIZE[dtype], axis_name)

    return step, lambda: init_state(model(), optimizer, SHAPE, seed=0)


def train(parallel: DataParallel, sizes: list[int], dtype: Any = jnp.float32) -> Any:
    """State and sums after a step on each of these batch sizes."""
    step, init = make_step(dtype)
    steps = parallel.compile_train(step)
    state, sums = parallel.replicate((init(), MetricSums.zeros(dtype)))
    for seed, size in enumerate(sizes):
        state, sums = steps(state, sums, place(parallel, *make_data(size, seed)))
    return jax.device_get((state, sums))


def place(parallel: DataParallel, *arrays: np.ndarray, num_steps: int = 1) -> PlacedChunk:
    """The arrays as a chunk of equal batches."""
    return parallel.place(*(a.reshape(num_steps, -1, *a.shape[1:]) for a in arrays))


def worst_difference(a: Any, b: Any) -> float:
    """The largest relative difference |x - y| / |x| (Euclidean norms) between two trees' leaves.

    Not element by element: Adam divides a gradient by its own size, so that where one is nearly
    zero its rounding shows whole in that one weight.
    """

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        x, y = np.ravel(x), np.ravel(y)
        return float(np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(difference, a, b)))


def variants() -> dict[str, DataParallel]:
    return {
        "jit over 8 devices": DataParallel("jit"),
        "pmap over 8 devices": DataParallel("pmap"),
        "pmap over 1 device": DataParallel("pmap", devices=jax.devices()[:1]),
    }


def test_one_float32_step_is_the_same_on_1_and_8_devices_and_with_pmap():
    expected = train(DataParallel(devices=jax.devices()[:1]), [32])
    for name, parallel in variants().items():
        difference = worst_difference(expected, train(parallel, [32]))
        assert difference < 1e-5, f"{name}: {difference}"


def test_20_float64_steps_are_the_same_on_1_and_8_devices_and_with_pmap():
    with jax.enable_x64(True):
        expected = train(DataParallel(devices=jax.devices()[:1]), [16] * 20, jnp.float64)
        for name, parallel in variants().items():
            difference = worst_difference(expected, train(parallel, [16] * 20, jnp.float64))
            assert difference < 1e-5, f"{name}: {difference}"


def test_the_jitted_step_equals_the_plain_function():
    step, init = make_step()
    state, sums, batch = init(), MetricSums.zeros(), jax.tree.map(jnp.asarray, make_data(16))
    with jax.disable_jit():
        expected = step(None, None)(state, sums, batch)
    got = jax.jit(step(None, None))(state, sums, batch)
    assert worst_difference(expected, got) < 1e-5


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("batch_norm", ["global", "device"])
def test_a_batch_that_does_not_divide_gives_the_result_of_one_device(mode, batch_norm):
    expected = train(DataParallel(devices=jax.devices()[:1]), [20])
    assert worst_difference(expected, train(DataParallel(mode, batch_norm), [20])) < 1e-5


def test_batch_norm_per_device_is_the_same_with_jit_and_pmap_and_differs_from_global():
    a, b = (train(DataParallel(mode, "device"), [32]) for mode in ("jit", "pmap"))
    assert worst_difference(a, b) < 1e-5
    assert worst_difference(a, train(DataParallel(), [32])) > 1e-3


def test_batch_norm_per_device_averages_the_devices_statistics():
    images, labels = make_data(16)
    state, _ = train_on(DataParallel("jit", "device", jax.devices()[:2]), images, labels)
    halves = [
        train_on(DataParallel(devices=jax.devices()[:1]), images[half], labels[half])[0]
        for half in (slice(0, 8), slice(8, 16))
    ]
    # Only the stem's statistics: deeper ones are the same function of it, no simple average.
    mean = [h.batch_stats["stem_norm"]["mean"] for h in halves]
    np.testing.assert_allclose(
        state.batch_stats["stem_norm"]["mean"], (mean[0] + mean[1]) / 2, rtol=1e-5, atol=1e-7
    )


def train_on(parallel: DataParallel, images: np.ndarray, labels: np.ndarray) -> Any:
    step, init = make_step()
    state, sums = parallel.replicate((init(), MetricSums.zeros()))
    steps = parallel.compile_train(step)
    return jax.device_get(steps(state, sums, place(parallel, images, labels)))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("batch_norm", ["global", "device"])
@pytest.mark.parametrize("num_devices", [1, 8])
def test_many_steps_in_a_dispatch_equal_as_many_dispatches(mode, batch_norm, num_devices):
    parallel = DataParallel(mode, batch_norm, jax.devices()[:num_devices])
    step, init = make_step()
    images, labels = make_data(3 * 16)
    steps = parallel.compile_train(step)
    state, sums = parallel.replicate((init(), MetricSums.zeros()))
    for part in np.split(np.arange(48), 3):
        state, sums = steps(state, sums, place(parallel, images[part], labels[part]))
    chunk = place(parallel, images, labels, num_steps=3)
    assert (chunk.steps, chunk.batch_size) == (3, 16)
    at_once = steps(parallel.replicate(init()), parallel.replicate(MetricSums.zeros()), chunk)
    assert int(at_once[0].step) == int(at_once[1].batches) == 3
    assert int(at_once[1].images) == 48
    assert worst_difference((state, sums), at_once) < 1e-4


@pytest.mark.parametrize(
    ("platform", "steps", "batch_bytes", "expected"),
    [
        pytest.param("cpu", 390, 128 * 3072, 1, id="cpu"),
        pytest.param("gpu", 390, 128 * 3072, 78, id="a divisor"),
        pytest.param("gpu", 48, 1024 * 3072, 8, id="what fits"),
        pytest.param("gpu", 97, 1024 * 3072, 10, id="a prime number of steps"),
        pytest.param("gpu", 5000, 256 * 224 * 224 * 3, 1, id="ImageNet"),
        pytest.param("gpu", 0, 128 * 3072, 1, id="no full batch"),
        pytest.param("gpu", 2, 64, 2, id="fewer than fit"),
    ],
)
def test_steps_per_dispatch(platform, steps, batch_bytes, expected):
    parallel = DataParallel(devices=jax.devices()[:1])
    parallel.devices = (types.SimpleNamespace(platform=platform),)
    assert parallel.steps_per_dispatch(steps, batch_bytes) == expected


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize(
    ("batch_size", "steps_per_dispatch"), [(7, 1), (50, 1), (1000, 1), (7, 3), (20, 6), (8, 100)]
)
def test_evaluation_counts_every_image_once(mode, num_devices, batch_size, steps_per_dispatch):
    images, labels = make_data(101)
    model = ResNet(DESIGN, 10)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    logits: Any = model.apply(variables, NORMALIZE[jnp.float32](jnp.asarray(images)))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    parallel = DataParallel(mode, devices=jax.devices()[:num_devices])
    steps = parallel.compile_eval(
        lambda axis, _: make_eval_step(model, NORMALIZE[jnp.float32], axis)
    )
    evaluator = Evaluator(steps, parallel, images, labels, batch_size, steps_per_dispatch)
    for _ in range(2):  # the second time, images that stayed on the devices
        result = evaluator(parallel.replicate(variables))
        assert result is not None and result.images == 101
        assert result.loss == pytest.approx(float(losses.mean()), rel=1e-5)
        assert result.accuracy == pytest.approx(float((logits.argmax(-1) == labels).mean()))


def test_evaluation_stops_when_asked():
    images, labels = make_data(8)
    model = ResNet(DESIGN, 10)
    parallel = DataParallel(devices=jax.devices()[:1])
    variables = parallel.replicate(model.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))
    steps = parallel.compile_eval(
        lambda axis, _: make_eval_step(model, NORMALIZE[jnp.float32], axis)
    )
    assert Evaluator(steps, parallel, images, labels, 4)(variables, lambda: True) is None
