"""The layers of a network, made alike: convolution, BatchNorm, pools and linear layer."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flax_resnet.models.norm import BatchNorm, Dtype

InitName = Literal["pytorch", "he_normal"]
# Takes the arguments of jax.lax.conv_general_dilated, by position; None: that function itself.
Convolve = Callable[..., jax.Array] | None
Images = Float[Array, "batch height width channels"]
NewImages = Float[Array, "batch new_height new_width new_channels"]

KERNEL_INITS = {
    # Uniform in +-1/sqrt(fan_in), which kaiming_uniform(a=sqrt(5)), PyTorch's default, comes to.
    "pytorch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    # He et al. 2015 (arXiv 1502.01852), eq. 10: not truncated, as nn.initializers.he_normal is.
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
}


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of a network.

    Attributes:
      weight_init: initial weights, a key of KERNEL_INITS.
      dtype: dtype of the computation, but for the linear layer.
      param_dtype: dtype of parameters, BatchNorm statistics and the linear layer.
      axis_name: mapped axis over which BatchNorm shares its statistics; None: the local batch.
      convolve: what computes convolutions.
    """

    weight_init: InitName = "pytorch"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    convolve: Convolve = None

    def conv(
        self, features: int, kernel_size: int, strides: int = 1, *, name: str | None = None
    ) -> nn.Conv:
        """A square convolution without bias, padded by kernel_size // 2 on every side.

        The padding is explicit because linen's 'SAME' at stride 2 pads (0, 1) where PyTorch, and
        so the paper, pads (1, 1).
        """
        padding = kernel_size // 2
        return nn.Conv(
            features,
            (kernel_size, kernel_size),
            strides=(strides, strides),
            padding=((padding, padding), (padding, padding)),
            use_bias=False,
            kernel_init=KERNEL_INITS[self.weight_init],
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=self.convolve,
            name=name,
        )

    def norm(self, *, initial_scale: float = 1.0, name: str | None = None) -> BatchNorm:
        """Batch normalization."""
        return BatchNorm(
            initial_scale=initial_scale,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def linear(self, features: int, fan_in: int, *, name: str | None = None) -> nn.Dense:
        """A linear layer; PyTorch's initial bias is uniform in +-1/sqrt(fan_in), He's is zero.

        In `param_dtype`: bfloat16 would round the logits to 8 bits before the loss.
        """
        bound = fan_in**-0.5

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(
            features,
            kernel_init=KERNEL_INITS[self.weight_init],
            bias_init=uniform if self.weight_init == "pytorch" else nn.initializers.zeros,
            dtype=self.param_dtype,
            param_dtype=self.param_dtype,
            name=name,
        )


class MaxPool(nn.Module):
    """The maximum of every 3x3 pixels at stride 2, padded by one pixel on every side."""

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch new_height new_width channels"]:
        """Halves height and width."""
        padding: Any = ((1, 1), (1, 1))  # linen declares only its names for paddings
        return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=padding)


class AvgPool(nn.Module):
    """The mean of square windows side by side; the rest below a whole window is dropped.

    Attributes:
      size: side of a window; None: one window, the map.
    """

    size: int | None = None

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch new_height new_width channels"]:
        """In the dtype of `x`."""
        window = window_of(self.size, x.shape[1:3])
        return nn.avg_pool(x, window_shape=window, strides=window)


def window_of(size: int | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(height, width) of the windows that average a map of `shape` (height, width)."""
    return (size, size) if size else shape
