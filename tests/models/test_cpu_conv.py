"""Each replaced convolution against jax.lax's own, forward and both gradients."""

import functools

import jax
import numpy as np
import pytest
from jax import lax

from flax_resnet.models.cpu import conv as cpu_conv
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet

without_onednn = functools.partial(cpu_conv.convolve, pick=cpu_conv.without_onednn)


def compare(shape: tuple[int, ...], features: int, size: int, strides: int, bound: float) -> None:
    rng = np.random.default_rng(0)
    batch, height, width, channels = shape

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    x = normal(*shape)
    kernel = normal(size, size, channels, features) / np.float32(size * channels**0.5)
    dy = normal(batch, -(-height // strides), -(-width // strides), features)
    padding = ((size // 2,) * 2,) * 2

    # Arrays that the function closes over would be constants, which XLA folds.
    @functools.partial(jax.jit, static_argnums=0)
    def outputs(convolve, x, kernel, dy):
        def f(x, kernel):
            return convolve(
                x, kernel, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(dy)

    ours = outputs(without_onednn, x, kernel, dy)
    native = outputs(lax.conv_general_dilated, x, kernel, dy)
    for name, a, b in zip(("y", "dx", "dkernel"), ours, native, strict=True):
        error = float(np.abs(a - b).max() / np.abs(b).max())
        assert error < bound, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    ("shape", "features", "size", "strides"),
    [
        ((4, 32, 32, 64), 64, 3, 1),
        ((4, 16, 16, 128), 128, 3, 1),
        ((4, 8, 8, 256), 256, 3, 1),
        ((4, 4, 4, 512), 512, 3, 1),
        ((4, 32, 32, 64), 128, 3, 2),
        ((4, 16, 16, 128), 256, 3, 2),
        ((4, 8, 8, 256), 512, 3, 2),
        ((4, 32, 32, 64), 128, 1, 2),
        ((4, 16, 16, 128), 256, 1, 2),
        ((4, 8, 8, 256), 512, 1, 2),
    ],
    ids=str,
)
def test_each_convolution_of_the_revised_network(shape, features, size, strides):
    compare(shape, features, size, strides, 1e-4)


@pytest.mark.parametrize(
    ("shape", "features", "size", "strides"),
    [
        ((3, 14, 14, 16), 16, 3, 1),  # not a multiple of the tile
        ((5, 7, 7, 16), 24, 3, 2),  # odd side, odd batch
        ((7, 4, 12, 16), 8, 3, 1),  # not square
        ((2, 12, 12, 3), 16, 3, 1),  # a stem: native
        ((2, 12, 12, 16), 16, 5, 1),  # native
        ((2, 9, 9, 16), 16, 1, 1),
    ],
    ids=str,
)
def test_other_shapes(shape, features, size, strides):
    compare(shape, features, size, strides, 1e-4)


def test_a_network_gives_the_same_logits_from_the_same_weights():
    design = Design((1, 1), (16, 32), (3, 3), (1, 1), pool_size=None)
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    native = ResNet(design, 10)
    shapes = jax.eval_shape(native.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0, 0.1, leaf.shape).astype(np.float32), shapes
    )
    fast = ResNet(design, 10, convolve=without_onednn)
    ours, expected = (np.asarray(jax.jit(m.apply)(variables, images)) for m in (fast, native))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("pick", "design", "expected"),
    [
        # Two in the first block and one in each other; not the stem, which has 3 channels.
        (cpu_conv.without_onednn, "revised", 5),
        (cpu_conv.with_onednn_and_winograd, "revised", 5),
        # Maps of 15 and 7 pixels are padded to whole tiles; not the 24 channels before, the 3x3
        # after.
        (cpu_conv.with_onednn_and_winograd, "airbench94", 4),
        (cpu_conv.with_onednn_and_winograd, "resnet20", 5),  # those of 64 channels
    ],
)
def test_the_rules_take_winograd_where_it_is_worth_it(pick, design, expected):
    picked = []

    def note(shape: cpu_conv.Shape) -> str:
        picked.append(pick(shape))
        return "native"

    network = ResNet(MODELS[design], 10, convolve=functools.partial(cpu_conv.convolve, pick=note))
    jax.eval_shape(network.init, jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)))
    assert picked.count("winograd") == expected
