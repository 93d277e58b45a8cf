"""Convolutions that are fast on XLA's CPU backend, in place of the native ones.

What computes a convolution is looked up by its shape: in a table of what was the fastest on this
machine (measure.py), or by a rule.

- `native`: XLA's own.
- `onednn`: oneDNN (onednn.py), where it can be called.
- `winograd`: Winograd's algorithm (winograd.py), 3x3 of stride 1; slow to compile.
- `product`: 1x1, as one matrix product.
- `chunked`: 3x3, native but for the kernel's gradient, the native one's slowest part, which is
  formed in chunks of the batch.

The mathematics is the same, in float32 rounded otherwise (within 1e-4 of the native convolution,
relative to the largest value).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


class Shape(NamedTuple):
    """A convolution with a square kernel, equal strides and equal padding on all sides.

    Attributes:
      dtype: of images and kernel.
      size: side of the kernel in pixels.
      strides: in both directions.
      padding: zeros on each side.
      height, width: of the images, in pixels.
      channels: of the images.
      features: channels of the output.
    """

    dtype: str
    size: int
    strides: int
    padding: int
    height: int
    width: int
    channels: int
    features: int

    def __str__(self) -> str:
        return f"{self.dtype} {self.described}"

    @property
    def described(self) -> str:
        """All but the dtype: '3x3/2+1 32x32 64>128' has stride 2 and a padding of 1."""
        kernel = f"{self.size}x{self.size}/{self.strides}+{self.padding}"
        return f"{kernel} {self.height}x{self.width} {self.channels}>{self.features}"

    @property
    def multiply_adds(self) -> int:
        """Of one image, forward; products with the padding included."""
        sides = self.height, self.width
        height, width = ((s + 2 * self.padding - self.size) // self.strides + 1 for s in sides)
        return self.size**2 * self.channels * self.features * height * width


Pick = Callable[[Shape], str]  # a key of IMPLEMENTATIONS


def convolve(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "kernel kernel channels features"],
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    *,
    pick: Pick,
    **others: Any,
) -> Float[Array, "batch new_height new_width features"]:
    """What flax.linen.Conv calls, with jax.lax.conv_general_dilated's arguments (NHWC, HWIO)."""
    shape = _shape(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation)
    name = "native" if shape is None else pick(shape)
    if shape is None or name == "native":
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, **others
        )
    return IMPLEMENTATIONS[name](lhs, rhs, shape.strides, shape.padding)


def _shape(
    lhs: jax.Array,
    rhs: jax.Array,
    strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
) -> Shape | None:
    """None: there is no `Shape` of it, as it is dilated, in groups, or unlike in its directions."""
    (size, width, channels, features), (pad, *pads) = rhs.shape, {p for ps in padding for p in ps}
    plain = (
        size == width
        and strides[0] == strides[1]
        and not pads
        and lhs.shape[3] == channels
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    )
    if not plain:
        return None
    _, height, width, _ = lhs.shape
    return Shape(str(lhs.dtype), size, strides[0], pad, height, width, channels, features)


def computes(name: str, shape: Shape) -> bool:
    """Whether an implementation, a key of IMPLEMENTATIONS, computes convolutions of a shape."""
    size, strides, padding = shape.size, shape.strides, shape.padding
    divides = size == 1 or shape.height % strides == shape.width % strides == 0
    return {
        "native": True,
        "onednn": 0 <= padding < size and divides and shape.dtype in ("float32", "bfloat16"),
        # In bfloat16 it would lose too many digits.
        "winograd": (size, strides, padding, shape.dtype) == (3, 1, 1, "float32"),
        "product": (size, padding) == (1, 0),
        "chunked": (size, padding) == (3, 1),
    }[name]


def without_onednn(shape: Shape) -> str:
    """Where oneDNN cannot be called: Winograd and products from 16 channels on."""
    if shape.padding != shape.size // 2 or shape.channels < MIN_CHANNELS:
        return "native"
    if shape.size == 3:
        tiles = shape.height % winograd.TILE == shape.width % winograd.TILE == 0
        return "winograd" if shape.strides == 1 and tiles else "chunked"
    return "product" if shape.size == 1 else "native"


def with_onednn(shape: Shape) -> str:
    """oneDNN, but for 1x1 in float32."""
    if not computes("onednn", shape):
        return "native"
    return "product" if (shape.size, shape.dtype) == (1, "float32") else "onednn"


def with_onednn_and_winograd(shape: Shape) -> str:
    """As `with_onednn`, and Winograd's algorithm where it was the faster on the machine above.

    With few channels its transforms cost more than the products they save, and so they do where
    much of a tile lies outside the images.
    """
    tiles = -(-shape.height // winograd.TILE) * -(-shape.width // winograd.TILE)
    gains = (
        computes("winograd", shape)
        and min(shape.channels, shape.features) >= MIN_WINOGRAD_CHANNELS
        and tiles * winograd.TILE**2 <= MAX_PADDED_AREA * shape.height * shape.width
    )
    return "winograd" if gains else with_onednn(shape)


def _native(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    pads, axes = ((padding, padding),) * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=axes)


def _onednn(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    if kernel.shape[0] == 1:
        x, strides = x[:, ::strides, ::strides], 1
    return onednn.conv(x, kernel, strides, padding)


def _winograd(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    return winograd.conv3x3_of_any_size(x, kernel)


def _conv1x1(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    x = x[:, ::strides, ::strides]
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv3x3(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return _native(x, kernel, strides, 1)


def _conv3x3_forward(
    x: jax.Array, kernel: jax.Array, strides: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _native(x, kernel, strides, 1), (x, kernel)


def _conv3x3_backward(
    strides: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (dx,) = jax.linear_transpose(lambda x: _native(x, kernel, strides, 1), x)(dy)
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


IMPLEMENTATIONS: dict[str, Callable[[jax.Array, jax.Array, int, int], jax.Array]] = {
    "native": _native,
    "onednn": _onednn,
    "winograd": _winograd,
    "product": _conv1x1,
    "chunked": lambda x, kernel, strides, _: _conv3x3(x, kernel, strides),
}
