"""BatchNorm against hand numbers and float64."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.models.norm import BatchNorm
from tests.conftest import ROOT

KEY = jax.random.key(0)


def initialized(norm: BatchNorm, channels: int) -> Any:
    return jax.jit(lambda x: norm.init(KEY, x, train=True))(jnp.zeros((2, 1, 1, channels)))


def train(norm: BatchNorm, variables: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """The output in train mode and the running statistics after it."""
    outputs: Any = jax.jit(lambda v, x: norm.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    return outputs[0], outputs[1]["batch_stats"]


def one_channel(*values: float) -> jax.Array:
    """A batch of images of one pixel and one channel."""
    return jnp.asarray(values, jnp.float32).reshape(-1, 1, 1, 1)


def test_batch_norm_starts_from_scale_1_bias_0_and_untouched_statistics():
    variables = initialized(BatchNorm(), channels=3)
    np.testing.assert_array_equal(variables["params"]["scale"], [1, 1, 1])
    np.testing.assert_array_equal(variables["params"]["bias"], [0, 0, 0])
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], [0, 0, 0])
    np.testing.assert_array_equal(variables["batch_stats"]["var"], [1, 1, 1])


def test_batch_norm_normalizes_with_the_biased_variance():
    # 1, 3, 5, 7: mean 4, biased variance (9 + 1 + 1 + 9) / 4 = 5, unbiased 20 / 3.
    norm = BatchNorm(epsilon=0.0)
    variables = initialized(norm, channels=1)
    out, _ = train(norm, variables, one_channel(1, 3, 5, 7))
    np.testing.assert_allclose(out.ravel(), np.array([-3, -1, 1, 3]) / 5**0.5, rtol=1e-6)


def test_batch_norm_feeds_the_unbiased_variance_to_the_running_average():
    norm = BatchNorm()
    variables = initialized(norm, channels=1)
    _, new = train(norm, variables, one_channel(1, 3, 5, 7))
    np.testing.assert_allclose(new["mean"], [0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(new["var"], [0.9 * 1 + 0.1 * 20 / 3], rtol=1e-6)


def test_batch_norm_pools_batch_height_and_width_but_not_channels():
    images = jnp.arange(2 * 3 * 3 * 2, dtype=jnp.float32).reshape(2, 3, 3, 2)
    norm = BatchNorm()
    variables = initialized(norm, channels=2)
    out, new = train(norm, variables, images)
    pixels = np.asarray(images).reshape(18, 2)
    expected_var = 0.9 + 0.1 * pixels.var(0, ddof=1)
    np.testing.assert_allclose(new["mean"], 0.1 * pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(new["var"], expected_var, rtol=1e-6)
    np.testing.assert_allclose(out.mean((0, 1, 2)), [0, 0], atol=1e-6)
    np.testing.assert_allclose(out.var((0, 1, 2)), [1, 1], atol=1e-5)


def test_batch_norm_in_eval_mode_uses_the_running_statistics():
    norm = BatchNorm(epsilon=0.0)
    variables = {
        "params": {"scale": jnp.array([3.0]), "bias": jnp.array([0.5])},
        "batch_stats": {"mean": jnp.array([2.0]), "var": jnp.array([4.0])},
    }
    # (x - 2) / 2 * 3 + 0.5; without `mutable`, an attempt to record would raise.
    out: Any = norm.apply(variables, one_channel(0, 2, 6), train=False)
    np.testing.assert_allclose(out.ravel(), [-2.5, 0.5, 6.5], rtol=1e-6)


def test_batch_norm_over_a_mapped_axis_equals_the_full_batch():
    images = 3 + 2 * jax.random.normal(KEY, (8, 5, 5, 4))
    local = BatchNorm()
    variables = initialized(local, channels=4)
    variables["batch_stats"]["mean"] = jnp.array([-1.0, 0.0, 2.0, 3.0])
    expected, expected_stats = train(local, variables, images)

    shared = BatchNorm(axis_name="devices")
    out, new_stats = jax.vmap(
        lambda shard: train(shared, variables, shard),
        axis_name="devices",
    )(images.reshape(4, 2, 5, 5, 4))
    np.testing.assert_allclose(out.reshape(images.shape), expected, atol=1e-5)
    for name, value in expected_stats.items():
        for device in range(4):
            np.testing.assert_allclose(
                new_stats[name][device],
                value,
                rtol=1e-5,
                err_msg=f"running {name} of device {device}",
            )


def test_batch_norm_of_the_local_batch_ignores_the_others():
    images = jax.random.normal(KEY, (4, 2, 5, 5, 3))
    norm = BatchNorm()
    variables = initialized(norm, channels=3)

    def apply(shard: jax.Array) -> jax.Array:
        return train(norm, variables, shard)[0]

    together = jax.vmap(apply, axis_name="devices")(images)
    np.testing.assert_allclose(together[0], apply(images[0]), atol=1e-6)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    norm = BatchNorm(dtype=jnp.bfloat16)
    images = (10 + jax.random.normal(KEY, (16, 4, 4, 2))).astype(jnp.bfloat16)
    variables = initialized(norm, channels=2)
    out, new = train(norm, variables, images)
    assert out.dtype == jnp.bfloat16
    for name, value in (variables["params"] | new).items():
        assert value.dtype == jnp.float32, f"{name} is {value.dtype}"
    # Computed in bfloat16, the mean of values near 10 would be off by up to 0.03.
    mean = np.asarray(images, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(new["mean"], 0.1 * mean, rtol=1e-5)
    unbiased = np.asarray(images, np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * unbiased, rtol=1e-4)


@pytest.mark.parametrize("ratio", [10, 100, 300, 1000])
def test_the_variance_keeps_its_digits_far_from_zero(ratio):
    # Each channel's mean is `ratio` standard deviations from 0 and one from the running mean.
    images = ratio + jax.random.normal(KEY, (64, 8, 8, 2))
    norm = BatchNorm(momentum=0.0)
    variables = initialized(norm, channels=2)
    variables["batch_stats"]["mean"] = jnp.full(2, ratio + 1.0)
    out, new = train(norm, variables, images)
    exact = np.asarray(images, np.float64)
    np.testing.assert_allclose(new["var"], exact.var((0, 1, 2), ddof=1), rtol=1e-5)
    np.testing.assert_allclose(new["mean"], exact.mean((0, 1, 2)), rtol=1e-6)
    expected = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
    # float32 has steps of 6e-5 near 1000.
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize(("distance", "height"), [(0, 8), (30, 8), (0, 15), (0, 31), (0, 1)])
def test_sums_of_bfloat16_images_are_as_exact_as_the_images(distance, height):
    """Against float64, of the rounded images; a mean of 30 standard deviations is extreme."""
    images = jax.random.normal(KEY, (64, height, 8, 3)).astype(jnp.bfloat16) + distance
    weights = np.asarray(jax.random.normal(jax.random.key(1), images.shape), np.float64)
    variables = initialized(BatchNorm(), channels=3)

    def gradient(norm: BatchNorm, images: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return (weights * train(norm, variables | {"params": params}, images)[0]).sum()

        return jax.grad(loss)(variables["params"])

    ours = gradient(BatchNorm(), images)
    with jax.enable_x64(True):
        exact = gradient(BatchNorm(param_dtype=jnp.float64), images.astype(jnp.float64))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), ours, exact)


def test_bfloat16_images_are_never_written_out_in_float32():
    norm = BatchNorm(dtype=jnp.bfloat16)
    images = jnp.zeros((32, 16, 16, 32), jnp.bfloat16)
    variables = initialized(norm, channels=32)

    def step(images: jax.Array) -> jax.Array:
        outputs: Any = norm.apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs[0] * 2

    def gradient(images: jax.Array, dy: jax.Array) -> jax.Array:
        y, pull = jax.vjp(step, images)
        return pull(jnp.where(y > 0, dy, 0))[0]

    analysis = jax.jit(gradient).lower(images, images).compile().cost_analysis()
    assert analysis is not None
    # With copies in float32, 22 times.
    assert analysis["bytes accessed"] < 15 * images.nbytes


KEPT = """
import jax
import jax.numpy as jnp
from flax_resnet.models.norm import normalize_batch

def loss(kernels, x):
    ones, zeros = jnp.ones(32), jnp.zeros(32)
    for kernel in kernels:
        x = jnp.tanh(x) @ kernel
        x = jax.nn.relu(normalize_batch(x, ones, zeros, zeros, 1e-5, None, jnp.float32)[0])
    return x.sum()

images = jnp.zeros((32, 16, 16, 32))
program = jax.jit(jax.grad(loss)).lower([jnp.eye(32)] * 4, images).compile()
print(program.memory_analysis().temp_size_in_bytes / images.nbytes)
"""


def test_one_device_keeps_images_once_for_the_gradient():
    environment = {
        k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }
    command = [sys.executable, "-c", KEPT]
    # Kept besides their difference from the mean, 13 or 14 times.
    assert float(subprocess.check_output(command, cwd=ROOT, env=environment)) < 11.5


def test_the_running_mean_changes_neither_output_nor_gradients_in_train_mode():
    images, weights = jax.random.normal(KEY, (2, 16, 4, 4, 3))
    norm = BatchNorm()
    variables = initialized(norm, channels=3)

    def gradients(running_mean: float) -> Any:
        stats = variables["batch_stats"] | {"mean": jnp.full(3, running_mean)}

        def loss(params: Any, stats: Any, images: jax.Array) -> jax.Array:
            return (
                weights * train(norm, {"params": params, "batch_stats": stats}, images)[0]
            ).sum()

        return jax.value_and_grad(loss, (0, 1, 2))(variables["params"], stats, images)

    shifted, expected = gradients(2.0), gradients(0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), shifted, expected)
