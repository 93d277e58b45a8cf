"""A first convolution that whitens the patches of the images, with filters from the images.

From tysam-code/hlb-CIFAR10 and Jordan 2024 (arXiv 2404.00498), section 3.2: the filters are the
principal components of 2x2 patches, each scaled to a variance of 1, and their negatives.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32, UInt8

from flax_resnet.models.layers import Convolve, Images
from flax_resnet.models.norm import Dtype

PATCH = 2  # pixels, the side of a patch
IMAGES = 5000  # that the filters are computed from
SLICE = 100  # of them at a time: the patches of all large images would take tens of GB
EPSILON = 5e-4  # added to the variance of a component
KERNEL = ("stem_whiten", "kernel")  # where the network has the filters


def features_of(channels: int) -> int:
    """Number of filters for images of so many channels: 24 for 3."""
    return 2 * PATCH**2 * channels


class WhiteningConv(nn.Module):
    """A 2x2 convolution without padding; the bias is trained, the filters are not.

    The filters are zero until `set_filters` puts those of the training images there.

    Attributes:
      dtype: dtype of the computation.
      param_dtype: dtype of filters and bias.
      convolve: what computes the convolution.
    """

    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    convolve: Convolve = None

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch new_height new_width features"]:
        """A pixel less in height and width; two features for each number of a patch."""
        channels, features = x.shape[-1], features_of(x.shape[-1])
        bound = (PATCH**2 * channels) ** -0.5  # PyTorch's default for the bias of a convolution

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        shape = (PATCH, PATCH, channels, features)
        kernel = self.param("kernel", nn.initializers.zeros, shape, self.param_dtype)
        bias = self.param("bias", uniform, (features,), self.param_dtype)
        convolve = self.convolve or lax.conv_general_dilated
        y = convolve(
            x.astype(self.dtype),
            lax.stop_gradient(kernel).astype(self.dtype),
            (1, 1),
            ((0, 0), (0, 0)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return add_bias(y, bias)


@jax.custom_vjp
def add_bias(
    x: Float[Array, "batch height width features"], bias: Float[Array, " features"]
) -> Float[Array, "batch height width features"]:
    """The sum in the dtype of `x`; the bias's gradient is summed in the bias's own."""
    return (x + bias).astype(x.dtype)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return add_bias(x, bias), bias


def _add_bias_backward(bias: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    # A sum, as a product: XLA's CPU backend takes the operations before a sum into it, slowly.
    summed = lax.dot_general(
        jnp.ones(dy.shape[:3], dy.dtype),
        dy,
        ((range(3), range(3)), ((), ())),
        preferred_element_type=bias.dtype,
    )
    return dy, summed


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def whitening_filters(
    images: UInt8[np.ndarray, "n height width channels"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float32[np.ndarray, "2 2 channels features"]:
    """The filters for images that are normalized by `mean` and `std` (in [0, 1]) before.

    Args:
      images: of which the first 5,000 are taken.
      mean: subtracted from the images, by channel.
      std: divides what mean leaves.
    """
    side = PATCH**2 * images.shape[-1]
    products, count = np.zeros((side, side)), 0
    for first in range(0, min(IMAGES, len(images)), SLICE):
        part = images[first : min(first + SLICE, IMAGES)]
        normalized = (part / 255.0 - np.array(mean)) / np.array(std)
        patches = np.lib.stride_tricks.sliding_window_view(normalized, (PATCH, PATCH), axis=(1, 2))
        # [n, rows, columns, channels, 2, 2] to a row a patch, ordered as a filter.
        rows = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, side)
        products += rows.T @ rows
        count += len(rows)
    variances, components = np.linalg.eigh(products / count)
    # An eigenvector's sign is LAPACK's choice; this makes it the same everywhere.
    largest = np.abs(components).argmax(0)
    components = components * np.sign(components[largest, np.arange(len(largest))])
    whitened = components / np.sqrt(variances + EPSILON)
    filters = np.concatenate([whitened, -whitened], axis=1)
    return filters.reshape(PATCH, PATCH, images.shape[-1], -1).astype(np.float32)


def set_filters(params: Any, filters: Float32[np.ndarray, "2 2 channels features"]) -> Any:
    """The network's parameters with these filters."""
    stem, kernel = KERNEL
    old = params[stem][kernel]
    return params | {stem: params[stem] | {kernel: jnp.asarray(filters, old.dtype)}}
