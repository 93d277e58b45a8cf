"""Initial weights, BatchNorm and padding against hand numbers and PyTorch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.models.layers import BatchNorm, InitName, conv, linear

KEY = jax.random.key(0)


def conv_kernel(weight_init: InitName) -> np.ndarray:
    """Kernel of a 3x3 convolution of 64 to 256 channels: fan-in 576, 147,456 weights."""
    layer = conv(256, 3, weight_init=weight_init)
    return np.asarray(layer.init(KEY, jnp.zeros((1, 4, 4, 64)))["params"]["kernel"])


def linear_params(weight_init: InitName) -> dict[str, np.ndarray]:
    """Parameters of a linear layer of 400 features to 300."""
    layer = linear(300, fan_in=400, weight_init=weight_init)
    params = layer.init(KEY, jnp.zeros((1, 400)))["params"]
    return {name: np.asarray(value) for name, value in params.items()}


def assert_uniform(values: np.ndarray, bound: float, std_tolerance: float) -> None:
    largest = np.abs(values).max()
    assert largest <= bound, f"|weight| up to {largest}, over the bound {bound}"
    assert largest > 0.98 * bound, f"|weight| only up to {largest} of {bound}"
    # A uniform variable in +-b has standard deviation b / sqrt(3).
    assert values.std() == pytest.approx(bound / 3**0.5, rel=std_tolerance)
    assert abs(values.mean()) < 5 * values.std() / values.size**0.5


def test_conv_weights_are_uniform_within_pytorchs_bounds():
    assert_uniform(conv_kernel("pytorch"), bound=576**-0.5, std_tolerance=0.01)


def test_linear_weights_and_bias_are_uniform_within_pytorchs_bounds():
    params = linear_params("pytorch")
    assert_uniform(params["kernel"], bound=1 / 20, std_tolerance=0.01)
    assert_uniform(params["bias"], bound=1 / 20, std_tolerance=0.1)


def test_he_normal_has_hes_standard_deviation_and_is_not_truncated():
    kernel = conv_kernel("he_normal")
    std = (2 / 576) ** 0.5
    assert kernel.std() == pytest.approx(std, rel=0.01)
    # 147,456 plain normal weights reach 4.3 standard deviations; jax's truncated ones stop at 2.3.
    assert np.abs(kernel).max() > 3.5 * std


def test_he_normal_linear_bias_is_zero():
    params = linear_params("he_normal")
    assert params["kernel"].std() == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert not params["bias"].any()


def test_conv_has_no_bias_and_keeps_the_image_size_at_stride_1():
    for kernel_size in (1, 3, 5, 7):
        layer = conv(8, kernel_size)
        out, variables = jax.eval_shape(layer.init_with_output, KEY, jnp.zeros((1, 6, 6, 3)))
        assert out.shape == (1, 6, 6, 8)
        assert set(variables["params"]) == {"kernel"}


def test_stride_2_conv_pads_one_pixel_on_every_side():
    # A kernel of ones over an image of ones counts the pixels under the window: padded at the
    # top left as well, the first window sees 4 of 9. Linen's 'SAME' would give 9 there.
    layer = conv(1, 3, strides=2)
    kernel = jnp.ones((3, 3, 1, 1))
    out: Any = layer.apply({"params": {"kernel": kernel}}, jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(out[0, :, :, 0], [[4, 6], [6, 9]])


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [8, 9])
def test_stride_2_conv_equals_pytorchs(kernel_size, size):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    kernel = rng.normal(size=(kernel_size, kernel_size, 3, 4)).astype(np.float32)
    ours: Any = conv(4, kernel_size, strides=2).apply({"params": {"kernel": kernel}}, images)
    theirs = torch.nn.functional.conv2d(
        torch.tensor(images.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        stride=2,
        padding=kernel_size // 2,
    )
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def initialised(norm: BatchNorm, channels: int) -> Any:
    return norm.init(KEY, jnp.zeros((2, 1, 1, channels)), train=True)


def train(norm: BatchNorm, variables: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """The output in train mode and the running statistics after it."""
    outputs: Any = norm.apply(variables, images, train=True, mutable=["batch_stats"])
    return outputs[0], outputs[1]["batch_stats"]


def one_channel(*values: float) -> jax.Array:
    """A batch of images of one pixel and one channel."""
    return jnp.asarray(values, jnp.float32).reshape(-1, 1, 1, 1)


def test_batch_norm_starts_from_scale_1_bias_0_and_untouched_statistics():
    variables = initialised(BatchNorm(), channels=3)
    np.testing.assert_array_equal(variables["params"]["scale"], [1, 1, 1])
    np.testing.assert_array_equal(variables["params"]["bias"], [0, 0, 0])
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], [0, 0, 0])
    np.testing.assert_array_equal(variables["batch_stats"]["var"], [1, 1, 1])


def test_batch_norm_normalises_with_the_biased_variance():
    # 1, 3, 5, 7: mean 4, biased variance (9 + 1 + 1 + 9) / 4 = 5, unbiased 20 / 3.
    norm = BatchNorm(epsilon=0.0)
    variables = initialised(norm, channels=1)
    out, _ = train(norm, variables, one_channel(1, 3, 5, 7))
    np.testing.assert_allclose(out.ravel(), np.array([-3, -1, 1, 3]) / 5**0.5, rtol=1e-6)


def test_batch_norm_feeds_the_unbiased_variance_to_the_running_average():
    norm = BatchNorm()
    variables = initialised(norm, channels=1)
    _, new = train(norm, variables, one_channel(1, 3, 5, 7))
    np.testing.assert_allclose(new["mean"], [0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(new["var"], [0.9 * 1 + 0.1 * 20 / 3], rtol=1e-6)


def test_batch_norm_pools_batch_height_and_width_but_not_channels():
    images = jnp.arange(2 * 3 * 3 * 2, dtype=jnp.float32).reshape(2, 3, 3, 2)
    norm = BatchNorm()
    variables = initialised(norm, channels=2)
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


def test_batch_norm_over_a_mapped_axis_equals_the_whole_batch():
    images = 3 + 2 * jax.random.normal(KEY, (8, 5, 5, 4))
    whole = BatchNorm()
    variables = initialised(whole, channels=4)
    expected, expected_stats = train(whole, variables, images)

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
    variables = initialised(norm, channels=3)

    def apply(shard: jax.Array) -> jax.Array:
        return train(norm, variables, shard)[0]

    together = jax.vmap(apply, axis_name="devices")(images)
    np.testing.assert_allclose(together[0], apply(images[0]), atol=1e-6)


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    norm = BatchNorm(dtype=jnp.bfloat16)
    images = (10 + jax.random.normal(KEY, (16, 4, 4, 2))).astype(jnp.bfloat16)
    variables = initialised(norm, channels=2)
    out, new = train(norm, variables, images)
    assert out.dtype == jnp.bfloat16
    for name, value in (variables["params"] | new).items():
        assert value.dtype == jnp.float32, f"{name} is {value.dtype}"
    # Computed in bfloat16, the mean of values near 10 would be off by up to 0.03.
    mean = np.asarray(images, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(new["mean"], 0.1 * mean, rtol=1e-5)
    unbiased = np.asarray(images, np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(new["var"], 0.9 + 0.1 * unbiased, rtol=1e-4)
