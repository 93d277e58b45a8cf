"""oneDNN's convolutions against float64, forward and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flax_resnet.models.cost import convolutions
from flax_resnet.models.cpu import conv as cpu_conv
from flax_resnet.models.cpu import onednn
from flax_resnet.models.cpu.measure import has_onednn
from flax_resnet.models.designs import MODELS
from flax_resnet.process.compile_cache import compile_program
from flax_resnet.process.paths import default_cache_dir

# Of the largest value: float32 sums thousands of products; bfloat16 has 8 bits.
BOUNDS = {"float32": 3e-5, "bfloat16": 6e-3}
BATCH = 2

fastest = functools.partial(cpu_conv.convolve, pick=cpu_conv.with_onednn)
with_winograd = functools.partial(cpu_conv.convolve, pick=cpu_conv.with_onednn_and_winograd)


def is_here(dtype: str) -> bool:
    return has_onednn(dtype, default_cache_dir())


needs_onednn = pytest.mark.skipif(not is_here("float32"), reason="this jaxlib has no oneDNN")


def shapes_of_all_designs() -> list[tuple[int, ...]]:
    """(side, channels, features, kernel size, strides), each once, images of 32 pixels."""
    found = set()
    for design in MODELS.values():
        for c in convolutions(design, (32, 32, 3)):
            side = c.outputs[0] * c.strides
            found.add((side, c.channels, c.features, c.kernel_size, c.strides))
    return sorted(found)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def outputs(convolve, x, kernel, dy, strides, padding):
    """The convolution and both gradients."""

    def f(x, kernel):
        pads, axes = ((padding, padding),) * 2, ("NHWC", "HWIO", "NHWC")
        return convolve(x, kernel, (strides, strides), pads, dimension_numbers=axes)

    y, vjp = jax.vjp(f, x, kernel)
    return y, *vjp(dy)


def compare(convolve, shape, features, size, strides, padding, dtype) -> None:
    rng = np.random.default_rng(0)
    side = (
        (shape[1] + 2 * padding - size) // strides + 1,
        (shape[2] + 2 * padding - size) // strides + 1,
    )
    x, kernel, dy = (
        jnp.asarray(rng.standard_normal(s, np.float32), dtype)
        for s in (shape, (size, size, shape[3], features), (shape[0], *side, features))
    )
    program = compile_program(outputs.lower(convolve, x, kernel, dy, strides, padding))
    ours = program(x, kernel, dy)
    with jax.enable_x64(True):
        exact = (jnp.asarray(np.asarray(a, np.float64)) for a in (x, kernel, dy))
        expected = [
            np.asarray(a) for a in outputs(lax.conv_general_dilated, *exact, strides, padding)
        ]
    for name, a, b in zip(("y", "dx", "dkernel"), ours, expected, strict=True):
        assert a.dtype == dtype, name
        error = float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())
        assert error < BOUNDS[dtype], f"{name}: {error:.1e}"


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", shapes_of_all_designs(), ids=str)
def test_each_convolution_of_every_design(shape, dtype):
    if dtype == "bfloat16" and not is_here(dtype):
        pytest.skip("no bfloat16 here")
    side, channels, features, size, strides = shape
    images = (BATCH, side, side, channels)
    compare(fastest, images, features, size, strides, size // 2, dtype)


@needs_onednn
@pytest.mark.parametrize(
    ("shape", "features", "size", "strides", "padding"),
    [
        ((3, 15, 15, 8), 16, 3, 1, 1),  # an odd side
        ((2, 8, 12, 8), 16, 3, 2, 1),  # not square
        ((2, 9, 9, 8), 16, 3, 2, 1),  # strides that do not divide it: native
        ((2, 32, 32, 3), 24, 2, 1, 0),  # an even kernel, no padding
        ((2, 12, 12, 4), 8, 5, 2, 2),
        ((2, 12, 12, 4), 8, 7, 2, 3),
        ((1, 12, 12, 6), 4, 3, 3, 0),
    ],
    ids=str,
)
def test_other_shapes(shape, features, size, strides, padding):
    compare(fastest, shape, features, size, strides, padding, "float32")


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("batch", "chunked", "strides"),
    [(16, True, 1), (40, True, 2), (11, False, 1), (10, False, 2)],
)
def test_the_kernels_gradient_in_chunks(batch, chunked, strides, dtype, monkeypatch):
    if dtype == "bfloat16" and not is_here(dtype):
        pytest.skip("no bfloat16 here")
    monkeypatch.setattr(onednn, "UNCUT_BYTES", 0)
    monkeypatch.setattr(onednn, "CHUNK_PIXELS", 320)  # 8 images of 8x8, 20 of 4x4
    x, dy = (jnp.zeros((batch, side, side, 4), dtype) for side in (8, 8 // strides))
    gradient = functools.partial(onednn.kernel_gradient, strides=strides, padding=1, size=3)
    assert ("scan" in str(jax.make_jaxpr(gradient)(x, dy))) == chunked
    compare(fastest, (batch, 8, 8, 4), 6, 3, strides, 1, dtype)


@needs_onednn
@pytest.mark.parametrize("side", [7, 15])
def test_winograd_pads_to_whole_tiles(side, monkeypatch):
    monkeypatch.setattr(cpu_conv, "MIN_WINOGRAD_CHANNELS", 4)
    images, kernel = np.zeros((2, side, side, 4), np.float32), np.zeros((3, 3, 4, 4), np.float32)
    lowered = outputs.lower(with_winograd, images, kernel, images, 1, 1).as_text()
    assert "onednn" not in lowered
    compare(with_winograd, (2, side, side, 4), 4, 3, 1, 1, "float32")
