"""The layers of a network, made alike: convolution, BatchNorm, pools and linear layer."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from flax_resnet.models.max_pool import max3x3, tile_max
from flax_resnet.models.norm import BatchNorm, Dtype

InitName = Literal["pytorch", "he_normal", "dirac"]
ActivationName = Literal["relu", "gelu", "silu"]
# Takes the arguments of jax.lax.conv_general_dilated, by position; None: that function itself.
Convolve = Callable[..., jax.Array] | None
Images = Float[Array, "batch height width channels"]
NewImages = Float[Array, "batch new_height new_width new_channels"]

# Uniform in +-1/sqrt(fan_in), which kaiming_uniform(a=sqrt(5)), PyTorch's default, comes to.
_pytorch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _dirac(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """The first filters of a convolution pass a channel each on; the rest is PyTorch's uniform.

    Jordan 2024 (arXiv 2404.00498), section 3.3.
    """
    kernel = _pytorch_uniform(key, shape, dtype)
    if len(shape) != 4:
        return kernel
    height, width, channels, features = shape
    passed = min(channels, features)
    identity = jnp.zeros((height, width, channels, passed), dtype)
    identity = identity.at[height // 2, width // 2].set(jnp.eye(channels, passed, dtype=dtype))
    return kernel.at[..., :passed].set(identity)


KERNEL_INITS = {
    "pytorch": _pytorch_uniform,
    # He et al. 2015 (arXiv 1502.01852), eq. 10: not truncated, as nn.initializers.he_normal is.
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
    "dirac": _dirac,
}


@jax.custom_jvp
def _relu(x: jax.Array) -> jax.Array:
    """nn.relu, as a selection.

    XLA computes a maximum again in each of its readers, and with it, in a chain of residual blocks,
    all the additions before. A selection has two operands, too many for that.
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


@_relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """By the output: the input need not be kept for the gradient, nor be written at all."""
    (x,), (dx,) = primals, tangents
    y = _relu(x)
    return y, jnp.where(y <= 0, jnp.zeros((), x.dtype), dx)


def _in_float32(activation: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """An activation of several operations, not rounded in between, as PyTorch's.

    Its gradient computes it again from the input, which takes less time than to write and read
    the values in between.
    """

    @jax.checkpoint
    def compute(x: jax.Array) -> jax.Array:
        return activation(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)

    return compute


def _gelu(x: jax.Array) -> jax.Array:
    """Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2, as PyTorch computes it.

    linen's exact one is by erfc, which keeps the digits of values below 1e-6 and takes twice as
    long on a CPU.
    """
    return x * 0.5 * (1 + lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": _relu,
    "gelu": _in_float32(_gelu),
    "silu": _in_float32(nn.silu),
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
      activation: a key of ACTIVATIONS.
      norm_scale, norm_momentum, norm_epsilon: of BatchNorm.
    """

    weight_init: InitName = "pytorch"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    convolve: Convolve = None
    activation: ActivationName = "relu"
    norm_scale: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5

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
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            use_scale=self.norm_scale,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def activate(self, x: jax.Array) -> jax.Array:
        """The activation, element by element."""
        return ACTIVATIONS[self.activation](x)

    def linear(
        self, features: int, fan_in: int, *, bias: bool = True, name: str | None = None
    ) -> nn.Dense:
        """A linear layer; PyTorch's initial bias is uniform in +-1/sqrt(fan_in), He's is zero.

        In `param_dtype`: bfloat16 would round the logits to 8 bits before the loss.
        """
        bound = fan_in**-0.5

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(
            features,
            use_bias=bias,
            kernel_init=KERNEL_INITS[self.weight_init],
            bias_init=nn.initializers.zeros if self.weight_init == "he_normal" else uniform,
            dtype=self.param_dtype,
            param_dtype=self.param_dtype,
            name=name,
        )


class MaxPool(nn.Module):
    """The maximum of every 3x3 pixels at stride 2, padded by one pixel on every side."""

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch new_height new_width channels"]:
        """Halves height and width."""
        return max3x3(x)


class TilePool(nn.Module):
    """The maximum of square windows side by side; the rest below a whole window is dropped.

    Attributes:
      size: side of a window; None: one window, the map.
    """

    size: int | None = None

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch new_height new_width channels"]:
        """The maximum of each window."""
        return tile_max(x, window_of(self.size, x.shape[1:3]))


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
