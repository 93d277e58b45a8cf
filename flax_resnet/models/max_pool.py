"""The maximum of square windows, with a gradient that is fast everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def tile_max(
    x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """The maximum of each window; the rest below a whole window is dropped.

    The gradient goes to the first pixel that is the maximum, as PyTorch's does. XLA's own, that of
    reduce_window, is slow on a CPU.
    """
    return functools.reduce(jnp.maximum, _pixels(x, window))


def _pixels(x: jax.Array, window: tuple[int, int]) -> list[jax.Array]:
    """The images of each place of a window, row by row."""
    height, width = window
    last = x.shape[1] - x.shape[1] % height, x.shape[2] - x.shape[2] % width
    return [
        x[:, i : last[0] : height, j : last[1] : width] for i in range(height) for j in range(width)
    ]


def _forward(
    x: jax.Array, window: tuple[int, int]
) -> tuple[jax.Array, tuple[jax.Array, tuple[int, ...]]]:
    largest, place = _largest(_pixels(x, window))
    return largest, (place, x.shape[1:3])


def _largest(pixels: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The maximum over the places of a window, and the number of the first that has it."""
    # XLA computes 16 bits on a CPU in float32, and would convert at each comparison.
    dtype = jnp.promote_types(pixels[0].dtype, jnp.float32)
    first, *others = (pixel.astype(dtype) for pixel in pixels)
    largest, place = first, jnp.zeros(first.shape, jnp.int32)
    for number, pixel in enumerate(others, start=1):
        place = jnp.where(pixel > largest, number, place)
        largest = jnp.maximum(largest, pixel)
    return largest.astype(pixels[0].dtype), place.astype(np.min_scalar_type(len(others)))


def _backward(
    window: tuple[int, int], residuals: tuple[jax.Array, tuple[int, ...]], dy: jax.Array
) -> tuple[jax.Array]:
    place, (height, width) = residuals
    batch, rows, columns, channels = dy.shape
    places = jnp.arange(window[0] * window[1], dtype=place.dtype).reshape(
        window[0], 1, window[1], 1
    )
    is_largest = place[:, :, None, :, None] == places
    tiles = jnp.where(is_largest, dy[:, :, None, :, None], 0)
    dx = tiles.reshape(batch, rows * window[0], columns * window[1], channels)
    rest = (height - dx.shape[1], width - dx.shape[2])
    return (jnp.pad(dx, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0))),)


tile_max.defvjp(_forward, _backward)


@jax.custom_vjp
def max3x3(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch new_height new_width channels"]:
    """The maximum of every 3x3 pixels at stride 2, padded by one pixel on every side.

    The gradient is as `tile_max`'s; a pixel in several windows has the sum of theirs.
    """
    return functools.reduce(jnp.maximum, _pixels3x3(x))


def _pixels3x3(x: jax.Array) -> list[jax.Array]:
    """The images of each place of a window, row by row."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    height, width = x.shape[1] - 2, x.shape[2] - 2  # what the windows' first pixels lie within
    return [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]


def _forward3x3(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, tuple[int, ...]]]:
    largest, place = _largest(_pixels3x3(x))
    return largest, (place, x.shape[1:3])


def _backward3x3(residuals: tuple[jax.Array, tuple[int, ...]], dy: jax.Array) -> tuple[jax.Array]:
    place, (height, width) = residuals
    dtype, dy = dy.dtype, dy.astype(jnp.promote_types(dy.dtype, jnp.float32))

    def given(i: int, j: int) -> jax.Array:
        """What row i, column j of each window gets, at the pixels' index halved."""
        d = jnp.where(place == 3 * i + j, dy, 0)
        if i == 0:  # of the next window
            d = jnp.pad(d[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
        if j == 0:
            d = jnp.pad(d[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
        return d

    # An even row of pixels is a window's middle one; an odd row the last, and the next one's first.
    rows_of = ((1,), (2, 0))
    pixels = [
        jnp.stack([sum(given(i, j) for i in above for j in beside) for beside in rows_of], axis=3)
        for above in rows_of
    ]
    batch, rows, columns, channels = dy.shape
    dx = jnp.stack(pixels, axis=2).reshape(batch, 2 * rows, 2 * columns, channels)
    return (dx[:, :height, :width].astype(dtype),)


max3x3.defvjp(_forward3x3, _backward3x3)
