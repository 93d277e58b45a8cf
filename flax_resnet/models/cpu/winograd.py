"""3x3 convolution by minimal filtering, F(4x4, 3x3), written for XLA's CPU backend.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308). The
output is cut into tiles of 4x4 pixels; each depends on 6x6 pixels of the input. With the constant
matrices B, G and A of section 4.3, a tile of the output is (equation 8)

    Y = A^T [ (G g G^T) * (B^T d B) ] A

where d is the 6x6 input tile, g the 3x3 kernel and * multiplies element by element: 36
multiplications where the direct sum takes 144. Summed over input channels, the element (i, j) of
all tiles together is one matrix product, M_ij = V_ij U_ij, of [tiles, channels] by [channels,
features]; 36 such products are what a CPU does best.

Every step is linear, so the gradients are the same steps transposed; `*_adjoint` is the transpose
of the function before it. The transforms of images are written as sums of slices with the
matrices' constants, most of which are 0, 1 or -1, not as products with 6x6 matrices; XLA compiles a
loop for each sum, so each is of all that it can be of.

With few channels the transforms take most of the time and of the memory. A batch is then computed
in chunks that stay in the cores' caches, and the gradients transform the images again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flax_resnet.models.cpu.fence import materialize
from flax_resnet.models.cpu.onednn import largest_divisor
from flax_resnet.process.machine import usable_cores

TILE = 4  # pixels of output in a tile's row
WINDOW = 6  # pixels of input that they depend on
# Tiles of a chunk for each core, up to so many channels. On two cores of an AMD EPYC (Zen 3), 128
# images with 32 channels of 16x16 pixels or 64 of 32x32 then take as long as at once, and a tenth
# of the memory; with 128 channels of 16x16, in chunks of any size, 1.1 to 1.5 times as long. The
# chunks' gradients of a kernel are added up, so their last bits depend on the number of cores.
CHUNK_TILES = 128
MAX_CHUNK_CHANNELS = 64

# Section 4.3; the transposes are what the products above use.
B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)

# Kronecker product: of a kernel's 9 numbers, the 36 of G g G^T.
G_G = np.kron(G, G)

# The elements (i, j) of every tile: 6 arrays, one for each i, of shape [6, tiles, channels].
Grid = list[jax.Array]


def conv3x3_of_any_size(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "3 3 channels features"]
) -> Float[Array, "batch height width features"]:
    """`conv3x3` of images that are padded with zeros to whole tiles, and cut again."""
    _, height, width, _ = x.shape
    below, beside = -height % TILE, -width % TILE
    if not below and not beside:
        return conv3x3(x, kernel)
    padded = jnp.pad(x, ((0, 0), (0, below), (0, beside), (0, 0)))
    return conv3x3(padded, kernel)[:, :height, :width]


@jax.custom_vjp
def conv3x3(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "3 3 channels features"]
) -> Float[Array, "batch height width features"]:
    """Convolution with stride 1 and padding 1; height and width are multiples of 4."""
    return _forward(x, kernel)[0]


# What the gradients need of the images: V, or for chunks the images.
Kept = Grid | jax.Array


@jax.jit  # traced once for all convolutions of a shape, as the gradients
def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[Kept, jax.Array]]:
    u = transform_kernel(kernel)

    def of_transformed(v: Grid, shape: tuple[int, ...]) -> jax.Array:
        # Fenced, since the layers after read it a few times: BatchNorm's statistics, its output.
        return materialize(lambda m: transform_output(m, shape), _products(v, u))

    chunks = num_chunks(x.shape, kernel.shape[3])
    if chunks == 1:
        v = transform_input(x)
        return of_transformed(v, x.shape[:3]), (v, kernel)

    def of_chunk(nothing: None, x: jax.Array) -> tuple[None, jax.Array]:
        return nothing, of_transformed(transform_input(x), x.shape[:3])

    _, y = _over_chunks(of_chunk, chunks, None, (x,), kernel.shape[3])
    return y, (x, kernel)


@jax.jit
def _backward(residuals: tuple[Kept, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    kept, kernel = residuals
    # Fenced by dy, or XLA would compute it in the forward pass, and keep it for this.
    u = materialize(lambda both: transform_kernel(both[1].swapaxes(2, 3)), (dy, kernel))

    def of_transformed(v: Grid, dy: jax.Array) -> tuple[Grid, jax.Array]:
        """dU^T = dM^T V and the gradient of the images."""
        dm = transform_output_adjoint(dy)
        # dM^T is laid out in memory: a product whose left operand is read by columns takes 3 times
        # as long with few channels.
        dm_t = materialize(lambda dm: [elements.swapaxes(1, 2) for elements in dm], dm)
        return _products(dm_t, v), transform_input_adjoint(_products(dm, u), dy.shape[:3])

    if isinstance(kept, list):
        du, dx = of_transformed(kept, dy)
        return dx, transform_kernel_adjoint(du).swapaxes(2, 3)

    def of_chunk(du: Grid, x: jax.Array, dy: jax.Array) -> tuple[Grid, jax.Array]:
        more, dx = of_transformed(transform_input(x), dy)
        return [a + b for a, b in zip(du, more, strict=True)], dx

    _, _, channels, features = kernel.shape
    start = [jnp.zeros((WINDOW, features, channels), dy.dtype)] * WINDOW
    chunks = num_chunks(kept.shape, features)
    du, dx = _over_chunks(of_chunk, chunks, start, (kept, dy), channels)
    return dx, transform_kernel_adjoint(du).swapaxes(2, 3)


conv3x3.defvjp(_forward, _backward)


def num_chunks(shape: tuple[int, ...], features: int) -> int:
    """Of how many chunks a batch of images of `shape` is computed."""
    batch, height, width, channels = shape
    if max(channels, features) > MAX_CHUNK_CHANNELS:
        return 1
    images = CHUNK_TILES * usable_cores() * TILE**2 // (height * width)
    return batch // largest_divisor(batch, max(1, images))


def _over_chunks(
    function: Callable[..., tuple[Any, jax.Array]],
    chunks: int,
    total: Any,
    arrays: tuple[jax.Array, ...],
    channels: int,
) -> tuple[Any, jax.Array]:
    """(total, images) of a function that takes a total and chunks of arrays, and returns both.

    lax.scan would take the memory of all images when the program starts; the fence takes it now.
    """
    size = len(arrays[0]) // chunks
    images = materialize(lambda x: jnp.zeros((*x.shape[:3], channels), x.dtype), arrays[-1])

    def add_chunk(i: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        total, images = carry
        chunk = [lax.dynamic_slice_in_dim(array, i * size, size) for array in arrays]
        total, new = function(total, *chunk)
        return total, lax.dynamic_update_slice_in_dim(images, new, i * size, 0)

    return lax.fori_loop(0, chunks, add_chunk, (total, images))


def _products(left: Grid, right: Grid) -> Grid:
    return [a @ b for a, b in zip(left, right, strict=True)]


def transform_input(x: Float[Array, "batch height width channels"]) -> Grid:
    """B^T d B of every tile."""
    rows = materialize(lambda x: [_combine(c, _windows(x, axis=1)) for c in B_T], x)
    tiles = -1, x.shape[-1]

    def columns(row: jax.Array) -> jax.Array:
        windows = _windows(row, axis=2)
        return jnp.stack([_combine(c, windows).reshape(tiles) for c in B_T])

    return [columns(row) for row in rows]


def transform_input_adjoint(v: Grid, shape: tuple[int, ...]) -> jax.Array:
    """Transpose of transform_input: tiles to images of `shape` (batch, height, width)."""
    batch, height, width = shape
    tiles = (WINDOW, batch, height // TILE, width // TILE, v[0].shape[-1])

    def add_rows(v: Grid) -> list[jax.Array]:
        """The 4 pixel rows, [6 columns of the tiles, batch, tile rows, tile columns, channels]."""
        v = [elements.reshape(tiles) for elements in v]
        return _add_windows([_combine(c, v) for c in B_T.T], axis=2)

    def add_all(v: Grid) -> jax.Array:
        rows = materialize(add_rows, v)
        return _interleave(
            [_add_windows([_combine(c, list(row)) for c in B_T.T], axis=2) for row in rows]
        )

    return materialize(add_all, v)


def transform_kernel(kernel: Float[Array, "3 3 channels features"]) -> Grid:
    """G g G^T, as one product."""
    _, _, channels, features = kernel.shape
    u = jnp.asarray(G_G, kernel.dtype) @ kernel.reshape(9, -1)
    return list(u.reshape(WINDOW, WINDOW, channels, features))


def transform_kernel_adjoint(u: Grid) -> Float[Array, "3 3 channels features"]:
    """Transpose of transform_kernel."""
    stacked = jnp.stack(u)
    _, _, channels, features = stacked.shape
    kernel = jnp.asarray(G_G.T, stacked.dtype) @ stacked.reshape(WINDOW**2, -1)
    return kernel.reshape(3, 3, channels, features)


def transform_output(m: Grid, shape: tuple[int, ...]) -> jax.Array:
    """A^T M A of every tile, put together to images of `shape` (batch, height, width)."""
    batch, height, width = shape
    tiles = (batch, height // TILE, width // TILE, m[0].shape[-1])
    rows = [_combine(c, m) for c in A_T]
    return _interleave([[_combine(c, list(row)).reshape(tiles) for c in A_T] for row in rows])


def transform_output_adjoint(dy: Float[Array, "batch height width features"]) -> Grid:
    """Transpose of transform_output."""
    tiles = -1, dy.shape[-1]

    def rows_of(dy: jax.Array) -> list[jax.Array]:
        phases = [dy[:, a::TILE] for a in range(TILE)]
        return [_combine(c, phases) for c in A_T.T]

    def columns(row: jax.Array) -> jax.Array:
        phases = [row[:, :, b::TILE] for b in range(TILE)]
        return jnp.stack([_combine(c, phases).reshape(tiles) for c in A_T.T])

    return [columns(row) for row in materialize(rows_of, dy)]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """sum_k coefficients[k] * arrays[k], without the zeros."""
    terms = [
        array if c == 1 else -array if c == -1 else array * c.astype(array.dtype)
        for c, array in zip(coefficients, arrays, strict=True)
        if c != 0
    ]
    return sum(terms[1:], start=terms[0])


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
    """The 6 rows (axis 1) or columns (axis 2) that each tile depends on; zeros outside."""
    shape = x.shape
    split = x.reshape(*shape[:axis], shape[axis] // TILE, TILE, *shape[axis + 1 :])
    inner = [lax.index_in_dim(split, a, axis + 1, keepdims=False) for a in range(TILE)]
    return [_shift(inner[-1], 1, axis), *inner, _shift(inner[0], -1, axis)]


def _add_windows(windows: list[jax.Array], axis: int) -> list[jax.Array]:
    """Transpose of _windows: pixels shared by neighbouring tiles are summed."""
    before, first, *middle, last, after = windows
    return [first + _shift(after, 1, axis), *middle, last + _shift(before, -1, axis)]


def _shift(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Moves by one tile along `axis`; zeros come in."""
    size = x.shape[axis]
    kept = lax.slice_in_dim(x, max(-by, 0), size - max(by, 0), axis=axis)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (max(by, 0), max(-by, 0))
    return jnp.pad(kept, padding)


def _interleave(pixels: list[list[jax.Array]]) -> jax.Array:
    """4 x 4 arrays [batch, tile rows, tile columns, features] to [batch, height, width, features].

    Stacked next to the tiles' own axes, so that whole rows of features are copied.
    """
    batch, rows, columns, features = pixels[0][0].shape
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    return stacked.reshape(batch, rows * TILE, columns * TILE, features)
