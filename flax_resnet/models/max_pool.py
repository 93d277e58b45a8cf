"""The maximum of square windows side by side, with a gradient that is fast everywhere."""

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
    first, *others = _pixels(x, window)
    largest, place = first, jnp.zeros(first.shape, jnp.int32)
    for number, pixel in enumerate(others, start=1):
        place = jnp.where(pixel > largest, number, place)
        largest = jnp.maximum(largest, pixel)
    return largest, (place.astype(np.min_scalar_type(len(others))), x.shape[1:3])


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
