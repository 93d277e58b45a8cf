"""Initial weights and padding against hand numbers and PyTorch's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet.models.layers import ACTIVATIONS, InitName, Layers, TilePool

KEY = jax.random.key(0)


def conv_kernel(weight_init: InitName) -> np.ndarray:
    """Kernel of a 3x3 convolution of 64 to 256 channels: fan-in 576, 147,456 weights."""
    layer = Layers(weight_init).conv(256, 3)
    return np.asarray(layer.init(KEY, jnp.zeros((1, 4, 4, 64)))["params"]["kernel"])


def linear_params(weight_init: InitName) -> dict[str, np.ndarray]:
    """Parameters of a linear layer of 400 features to 300."""
    layer = Layers(weight_init).linear(300, fan_in=400)
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


@pytest.mark.parametrize(("channels", "features"), [(8, 12), (8, 8), (12, 8)])
def test_dirac_filters_pass_channels_on_and_the_others_are_pytorchs(channels, features):
    layer = Layers("dirac").conv(features, 3)
    images = jax.random.normal(KEY, (2, 5, 5, channels))
    out, variables = layer.init_with_output(KEY, images)
    passed = min(channels, features)
    np.testing.assert_allclose(out[..., :passed], images[..., :passed], rtol=1e-6)
    plain = Layers().conv(features, 3).init(KEY, images)["params"]["kernel"]
    np.testing.assert_array_equal(variables["params"]["kernel"][..., passed:], plain[..., passed:])


@pytest.mark.parametrize("size", [2, 3, None])
def test_tile_pool_and_its_gradient_are_linens(size):
    images = jax.random.normal(KEY, (2, 7, 8, 3))
    window = (size, size) if size else (7, 8)

    def linens(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, window, window)

    def ours(x: jax.Array) -> Any:
        return TilePool(size).apply({}, x)

    np.testing.assert_array_equal(ours(images), linens(images))
    grads = [jax.grad(lambda x, f=f: (f(x) ** 2).sum())(images) for f in (ours, linens)]
    np.testing.assert_array_equal(*grads)


def test_a_max_pool_of_more_than_256_pixels_has_its_gradient():
    images = jax.random.normal(KEY, (2, 17, 17, 3))

    def ours(x: jax.Array) -> Any:
        pooled: Any = TilePool(None).apply({}, x)
        return pooled.sum()

    def linens(x: jax.Array) -> Any:
        return nn.max_pool(x, (17, 17)).sum()

    np.testing.assert_array_equal(jax.grad(ours)(images), jax.grad(linens)(images))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    theirs = getattr(torch.nn.functional, name)(torch.tensor(x))
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_smooth_activations_are_rounded_once(name):
    x = jnp.linspace(-4, 4, 99).astype(jnp.bfloat16)
    exact = jax.vmap(jax.value_and_grad(ACTIVATIONS[name]))(x.astype(jnp.float32))
    rounded = jax.vmap(jax.value_and_grad(ACTIVATIONS[name]))(x)
    for got, expected in zip(rounded, exact, strict=True):
        np.testing.assert_array_equal(got, expected.astype(jnp.bfloat16))


def test_relu_is_linens_with_its_gradient_and_passes_nan():
    x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.nan])
    ours, linens = (jax.vmap(jax.value_and_grad(f))(x) for f in (ACTIVATIONS["relu"], nn.relu))
    np.testing.assert_array_equal(ours[0], linens[0])
    np.testing.assert_array_equal(ours[1][:4], linens[1][:4])


def test_relu_is_not_computed_again_by_each_of_its_readers():
    def bytes_read(relu: Callable[[jax.Array], jax.Array]) -> float:
        def residual(x: jax.Array, kernel: jax.Array) -> jax.Array:
            for _ in range(4):
                axes = ("NHWC", "HWIO", "NHWC")
                y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)
                x = relu(x + y)
            return x

        shapes = jax.ShapeDtypeStruct((2, 8, 8, 4), "f4"), jax.ShapeDtypeStruct((3, 3, 4, 4), "f4")
        analysis = jax.jit(residual).lower(*shapes).compile().cost_analysis()
        assert analysis is not None
        return analysis["bytes accessed"]

    assert bytes_read(ACTIVATIONS["relu"]) < 0.8 * bytes_read(nn.relu)


def test_conv_has_no_bias_and_keeps_the_image_size_at_stride_1():
    for kernel_size in (1, 3, 5, 7):
        layer = Layers().conv(8, kernel_size)
        out, variables = jax.eval_shape(layer.init_with_output, KEY, jnp.zeros((1, 6, 6, 3)))
        assert out.shape == (1, 6, 6, 8)
        assert set(variables["params"]) == {"kernel"}


def test_stride_2_conv_pads_one_pixel_on_every_side():
    # A kernel of ones over an image of ones counts the pixels under the window: padded at the
    # top left as well, the first window sees 4 of 9. Linen's 'SAME' would give 9 there.
    layer = Layers().conv(1, 3, strides=2)
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
    layer = Layers().conv(4, kernel_size, strides=2)
    ours: Any = layer.apply({"params": {"kernel": kernel}}, images)
    theirs = torch.nn.functional.conv2d(
        torch.tensor(images.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        stride=2,
        padding=kernel_size // 2,
    )
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-4)
