"""Convolutions that are fast on XLA's CPU backend, in place of the native ones.

`fastest`, where oneDNN can be called (probe.py):
- 3x3, stride 1, float32, 64 channels or more: Winograd's algorithm (winograd.py), if asked for;
- 1x1 in float32: one matrix product;
- everything else: oneDNN (onednn.py).

`without_onednn`:
- 3x3, stride 1: Winograd's algorithm;
- 3x3 otherwise: native forward and input gradient; the kernel's gradient, the native one's slowest
  part, in chunks of the batch;
- 1x1: one matrix product.

What neither covers stays native. The mathematics is the same, in float32 rounded otherwise (within
1e-4 of the native convolution, relative to the largest value).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flax_resnet.models.cpu import onednn, winograd
from flax_resnet.models.cpu.fence import materialize

# Below this, there is too little work in a pixel for matrix products to pay (the stem has 3).
MIN_CHANNELS = 16
# Pixels of output whose products are formed at a time. Of 256 to 8192, 1024 was the fastest or
# within 5% of it for each stride-2 convolution of the revised network (2 cores, batch 128).
CHUNK_PIXELS = 1024
# On 2 cores of an AMD EPYC (Zen 5), a batch of 128: with 64 channels of 32x32 pixels three times as
# fast as oneDNN, with 32 or 64 channels of 16x16 or 8x8 a tenth, with 16 of 32x32 slower.
MIN_WINOGRAD_CHANNELS = 64
MAX_PADDED_AREA = 1.4  # of images padded to whole tiles, over their own: 7x7 pays, 3x3 does not


def without_onednn(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "kernel kernel channels features"],
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    **others: Any,
) -> Float[Array, "batch new_height new_width features"]:
    """What flax.linen.Conv calls, with jax.lax.conv_general_dilated's arguments (NHWC, HWIO)."""
    size, strides = rhs.shape[0], window_strides[0]
    half = ((size // 2,) * 2,) * 2
    plain = _is_plain(lhs, rhs, window_strides, lhs_dilation, rhs_dilation)
    if plain and tuple(map(tuple, padding)) == half and lhs.shape[-1] >= MIN_CHANNELS:
        if size == 1:
            return _conv1x1(lhs[:, ::strides, ::strides], rhs)
        if size == 3 and uses_winograd(lhs.shape, strides):
            return winograd.conv3x3(lhs, rhs)
        if size == 3:
            return _conv3x3(lhs, rhs, strides)
    return lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, **others
    )


def fastest(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "kernel kernel channels features"],
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    *,
    with_winograd: bool = False,
    **others: Any,
) -> Float[Array, "batch new_height new_width features"]:
    """As `without_onednn`; `with_winograd` takes about 2 s longer to compile a convolution."""
    size, strides, pads = rhs.shape[0], window_strides[0], {pad for pads in padding for pad in pads}
    plain = (
        _is_plain(lhs, rhs, window_strides, lhs_dilation, rhs_dilation)
        and len(pads) == 1
        and 0 <= min(pads) < size
        and (size == 1 or lhs.shape[1] % strides == lhs.shape[2] % strides == 0)
        and lhs.dtype in (jnp.float32, jnp.bfloat16)
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, **others
        )
    if size == 1:
        x = lhs[:, ::strides, ::strides]
        return _conv1x1(x, rhs) if x.dtype == jnp.float32 else onednn.conv(x, rhs, 1, 0)
    padding = min(pads)
    float32 = lhs.dtype == jnp.float32
    if with_winograd and float32 and gains_by_winograd(lhs.shape, rhs.shape, strides, padding):
        return winograd.conv3x3_of_any_size(lhs, rhs)
    return onednn.conv(lhs, rhs, strides, padding)


def gains_by_winograd(
    shape: Sequence[int], kernel_shape: Sequence[int], strides: int, padding: int
) -> bool:
    """Whether winograd.py is faster than oneDNN in float32, by the shapes of images and kernel.

    With few channels its transforms cost more than the products they save, and so they do where
    much of a tile lies outside the images. In bfloat16 they would lose too many digits.
    """
    _, height, width, channels = shape
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    return (
        tuple(kernel_shape[:2]) == (3, 3)
        and (strides, padding) == (1, 1)
        and min(channels, kernel_shape[3]) >= MIN_WINOGRAD_CHANNELS
        and tiles * winograd.TILE**2 <= MAX_PADDED_AREA * height * width
    )


def _is_plain(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
) -> bool:
    """A square kernel with equal strides, all its channels in one group, nothing dilated."""
    return (
        rhs.shape[0] == rhs.shape[1]
        and strides[0] == strides[1]
        and lhs.shape[3] == rhs.shape[2]
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    )


def uses_winograd(shape: Sequence[int], strides: int) -> bool:
    """Whether a 3x3 convolution of [batch, height, width, channels] goes through winograd.py."""
    _, height, width, channels = shape
    divides = height % winograd.TILE == 0 and width % winograd.TILE == 0
    return strides == 1 and divides and channels >= MIN_CHANNELS


def _conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    flat = _product(x.reshape(-1, x.shape[-1]), kernel[0, 0])
    return flat.reshape(*x.shape[:3], -1)


@jax.custom_vjp
def _product(x: Float[Array, "n channels"], w: Float[Array, "channels features"]) -> jax.Array:
    """The product; the gradient of w is formed so that XLA transposes the smaller operand."""
    return x @ w


def _product_forward(x: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ w, (x, w)


def _product_backward(
    residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    return dy @ w.T, (dy.T @ x).T


_product.defvjp(_product_forward, _product_backward)


def _native3x3(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv3x3(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return _native3x3(x, kernel, strides)


def _conv3x3_forward(
    x: jax.Array, kernel: jax.Array, strides: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _native3x3(x, kernel, strides), (x, kernel)


def _conv3x3_backward(
    strides: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (dx,) = jax.linear_transpose(lambda x: _native3x3(x, kernel, strides), x)(dy)
    return dx, kernel_gradient3x3(x, dy, strides)


_conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def kernel_gradient3x3(
    x: Float[Array, "batch height width channels"],
    dy: Float[Array, "batch new_height new_width features"],
    strides: int,
) -> Float[Array, "3 3 channels features"]:
    """Gradient of a 3x3 kernel with padding 1, summed over chunks of the batch.

    For each kernel row, dW_row^T += dy^T p_row, where p [pixels, 3 channels] holds the image
    shifted to the three kernel columns side by side; a kernel row is then a slice of p.
    """
    batch, height, width, channels = x.shape
    _, new_height, new_width, features = dy.shape
    chunk = onednn.largest_divisor(batch, max(1, CHUNK_PIXELS // (new_height * new_width)))

    def add_chunk(
        total: list[jax.Array], arrays: tuple[jax.Array, jax.Array]
    ) -> tuple[list[jax.Array], None]:
        x, dy = arrays
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        last = strides * (new_width - 1) + 1
        columns = [padded[:, :, j : j + last : strides] for j in range(3)]
        p = jnp.concatenate(columns, axis=-1)
        last = strides * (new_height - 1) + 1
        rows = [p[:, i : i + last : strides].reshape(-1, 3 * channels) for i in range(3)]
        return [t + dy @ row for t, row in zip(total, rows, strict=True)], None

    start = [jnp.zeros((features, 3 * channels), x.dtype)] * 3
    chunks = (
        x.reshape(batch // chunk, chunk, height, width, channels),
        # Transposed in memory, as in winograd.py.
        materialize(lambda dy: dy.reshape(batch // chunk, -1, features).swapaxes(1, 2), dy),
    )
    total, _ = lax.scan(add_chunk, start, chunks)
    return jnp.stack([t.T for t in total]).reshape(3, 3, channels, features)
