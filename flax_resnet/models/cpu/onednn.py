"""Convolutions by oneDNN, which XLA's CPU backend has built in, called directly.

XLA's own CPU convolutions reach about half of oneDNN's rate, and compute bfloat16 in float32. Its
flags that hand convolutions to oneDNN slow its matrix products down, and do not find every
convolution; so this emits the custom call that those flags have XLA emit. oneDNN is called for the
forward direction only: both gradients are written as forward convolutions of other arrays.
"""

import functools
import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Images in a chunk of a kernel's gradient, at least, and as many more as have so many pixels: each
# chunk also adds up a whole kernel. Of 4 to 200 images, these took the least time or within 15% of
# it, on two cores of an AMD EPYC (Zen 5: 1 MiB of L2 cache each) at batches of 128 and 2,000, with
# 3 to 512 channels of 32x32 to 3x3 pixels. Up to UNCUT_BYTES there is only one chunk.
CHUNK_IMAGES = 8
CHUNK_PIXELS = 2048
MIN_CHUNK_IMAGES = 4
UNCUT_BYTES = 6 << 20

Pads = Sequence[tuple[int, int]]  # zeros (before, after) along each spatial axis; none negative


def convolve(
    x: Float[Array, "batch *sides channels"],
    kernel: Float[Array, "*taps channels features"],
    pads: Pads,
    strides: int = 1,
    dilation: int = 1,
) -> Float[Array, "batch *new_sides features"]:
    """A convolution over two or three axes, in the dtype of `x`; its sums are float32.

    Args:
      x: float32 or bfloat16.
      kernel: in the same dtype.
      pads: of each spatial axis.
      strides: of all axes.
      dilation: distance between the kernel's elements, of all axes.
    """
    axes = list(range(1, x.ndim - 1))
    sides = [
        (x.shape[axis] + sum(pad) - dilation * (kernel.shape[axis - 1] - 1) - 1) // strides + 1
        for axis, pad in zip(axes, pads, strict=True)
    ]
    # XLA's message OneDnnConvolutionConfig.
    images = {"data": {"batch_dim": 0, "feature_dim": x.ndim - 1, "spatial_dims": axes}, "dims": 0}
    taps = {
        "input_feature_dim": kernel.ndim - 2,
        "output_feature_dim": kernel.ndim - 1,
        "shape": kernel.shape,
        "spatial_dims": [axis - 1 for axis in axes],
    }
    window = {
        "size": [],
        "strides": [strides] * len(axes),
        "pad_left": [before for before, _ in pads],
        "pad_right": [after for _, after in pads],
        "window_dilations": [dilation] * len(axes),
    }
    config = {
        "dims": x.ndim,
        "feature_groups": 1,
        "input": images,
        "kernel": {"dims": 0, "filter": taps},
        "output": images,
        "window": window,
    }
    call = jax.ffi.ffi_call(
        "__onednn$convolution",
        jax.ShapeDtypeStruct((x.shape[0], *sides, kernel.shape[-1]), x.dtype),
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )
    return call(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels features"],
    strides: int,
    padding: int,
) -> Float[Array, "batch new_height new_width features"]:
    """A square convolution and its gradients; height and width are multiples of the strides."""
    return convolve(x, kernel, [(padding, padding)] * 2, strides)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, strides, padding), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))  # traced once for all convolutions of a shape
def _backward(
    strides: int, padding: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dx = input_gradient(dy, kernel, strides, padding, x.shape[1:3])
    return dx, kernel_gradient(x, dy, strides, padding, kernel.shape[0])


conv.defvjp(_forward, _backward)


def input_gradient(
    dy: Float[Array, "batch new_height new_width features"],
    kernel: Float[Array, "size size channels features"],
    strides: int,
    padding: int,
    sides: Sequence[int],
) -> Float[Array, "batch height width channels"]:
    """The gradient of the images, whose `sides` (height, width) are multiples of the strides.

    A pixel meets only those elements of the kernel that lie a multiple of the strides apart. So
    the pixels of each phase (row and column modulo the strides) are one convolution of dy with
    those elements, in reverse order.
    """
    size, channels = kernel.shape[0], kernel.shape[2]
    turned = kernel.swapaxes(2, 3)

    def elements(phase: int, side: int, new_side: int) -> tuple[list[int], tuple[int, int]]:
        """Rows (or columns) of the kernel that a phase meets, and the padding of dy."""
        found = list(range((phase + padding) % strides, size, strides))[::-1]
        before = len(found) - 1 - (phase + padding) // strides
        return found, (before, side // strides - new_side - before + len(found) - 1)

    def pixels(*phases: int) -> jax.Array:
        (rows, vertical), (columns, horizontal) = (
            elements(*axis) for axis in zip(phases, sides, dy.shape[1:3], strict=True)
        )
        if not rows or not columns:
            shape = (dy.shape[0], *(side // strides for side in sides), channels)
            return jnp.zeros(shape, dy.dtype)
        met = jnp.stack([jnp.stack([turned[a, b] for b in columns]) for a in rows])
        return convolve(dy, met, (vertical, horizontal))

    if strides == 1:
        return pixels(0, 0)
    # Stacked next to the images' own axes, so that whole pixels are copied.
    rows = [jnp.stack([pixels(a, b) for b in range(strides)], axis=3) for a in range(strides)]
    return jnp.stack(rows, axis=2).reshape(dy.shape[0], *sides, channels)


def kernel_gradient(
    x: Float[Array, "batch height width channels"],
    dy: Float[Array, "batch new_height new_width features"],
    strides: int,
    padding: int,
    size: int,
) -> Float[Array, "size size channels features"]:
    """The gradient of the kernel: a convolution of the images with dy as its kernel.

    What is summed is the batch, in the place of channels, and the pixels of dy. The channels are a
    third spatial axis: as a batch of images they would leave oneDNN rows of `size` sums only, at
    half the speed (64 channels of 32x32 pixels). oneDNN reads all of both for each element of the
    kernel, so the batch is cut into chunks that stay in the cache.
    """
    # Strides may pass over the last row and column.
    sides = [strides * (side - 1) + size - padding for side in dy.shape[1:3]]
    x = x[:, : sides[0], : sides[1]]
    pads = [(padding, side - old) for side, old in zip(sides, x.shape[1:3], strict=True)]

    def of_chunk(x: jax.Array, dy: jax.Array) -> jax.Array:
        images = x.transpose(1, 2, 3, 0)[None]
        by_pixel = dy.transpose(1, 2, 0, 3)[:, :, None]
        return convolve(images, by_pixel, [*pads, (0, 0)], dilation=strides)[0]

    chunk_images = max(CHUNK_IMAGES, CHUNK_PIXELS // (dy.shape[1] * dy.shape[2]))
    chunk = largest_divisor(x.shape[0], chunk_images)
    fits = chunk == x.shape[0] or x.nbytes + dy.nbytes <= UNCUT_BYTES
    if fits or chunk < MIN_CHUNK_IMAGES:
        return of_chunk(x, dy)

    def add_chunk(index: jax.Array, total: jax.Array) -> jax.Array:
        # The barriers keep XLA from converting all of both to float32 before it cuts chunks out.
        *arrays, index = lax.optimization_barrier((x, dy, index))
        chunks = [lax.dynamic_slice_in_dim(a, index * chunk, chunk) for a in arrays]
        return total + of_chunk(*lax.optimization_barrier(chunks)).astype(jnp.float32)

    zeros = jnp.zeros((size, size, x.shape[3], dy.shape[3]), jnp.float32)
    return lax.fori_loop(0, x.shape[0] // chunk, add_chunk, zeros).astype(x.dtype)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
