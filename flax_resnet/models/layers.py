"""Convolution, BatchNorm, linear layer and initial weights, as the paper's PyTorch has them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

Dtype = Any
InitName = Literal["pytorch", "he_normal"]
# Takes the arguments of jax.lax.conv_general_dilated, by position; None: that function itself.
Convolve = Callable[..., jax.Array] | None

# Uniform in +-1/sqrt(fan_in): what kaiming_uniform(a=sqrt(5)), PyTorch's default, comes to.
_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He et al. 2015 (arXiv 1502.01852), eq. 10: a plain normal; nn.initializers.he_normal truncates it.
_he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

KERNEL_INITS = {"pytorch": _uniform_fan_in, "he_normal": _he_normal}


def conv(
    features: int,
    kernel_size: int,
    strides: int = 1,
    *,
    weight_init: InitName = "pytorch",
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    convolve: Convolve = None,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution without bias, padded by kernel_size // 2 on every side.

    The padding is explicit because linen's 'SAME' at stride 2 pads (0, 1) where PyTorch, and so
    the paper, pads (1, 1).

    Args:
      features: number of output channels.
      kernel_size: side of the kernel in pixels, odd.
      strides: stride in both directions.
      weight_init: initial weights, a key of KERNEL_INITS.
      dtype: dtype of the computation.
      param_dtype: dtype of the kernel.
      convolve: what computes it.
      name: the submodule's name.
    """
    padding = kernel_size // 2
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=(strides, strides),
        padding=((padding, padding), (padding, padding)),
        use_bias=False,
        kernel_init=KERNEL_INITS[weight_init],
        dtype=dtype,
        param_dtype=param_dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def linear(
    features: int,
    fan_in: int,
    *,
    weight_init: InitName = "pytorch",
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    name: str | None = None,
) -> nn.Dense:
    """A linear layer with bias; PyTorch's bias is uniform in +-1/sqrt(fan_in), He's is zero."""
    return nn.Dense(
        features,
        kernel_init=KERNEL_INITS[weight_init],
        bias_init=_uniform_bias(fan_in) if weight_init == "pytorch" else nn.initializers.zeros,
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )


def _uniform_bias(fan_in: int) -> Callable[..., jax.Array]:
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BatchNorm(nn.Module):
    """Batch normalisation whose running variance is PyTorch's (Ioffe and Szegedy 2015, alg. 1, 2).

    Normalises with the biased batch variance, but feeds the running average the unbiased one,
    n / (n - 1) of it, which flax.linen.BatchNorm has no option for. Statistics are computed and
    kept in `param_dtype` whatever the compute dtype.

    Attributes:
      momentum: share of the old running average that is kept; PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance before the square root.
      axis_name: mapped axis over which the statistics are shared; None: those of the local batch.
      dtype: dtype of the output.
      param_dtype: dtype of scale, bias, running mean and variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Normalises over batch, height and width; `train` uses and records the batch's own."""
        features = inputs.shape[-1]
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, (features,), self.param_dtype
        )
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, (features,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.param_dtype)

        x = inputs.astype(self.param_dtype)
        if not train:
            factor = scale * lax.rsqrt(running_var.value + self.epsilon)
            return ((x - running_mean.value) * factor + bias).astype(self.dtype)
        normalized: Any = normalize_batch(x, scale, bias, self.epsilon, self.axis_name)
        y, mean, var = normalized
        if not self.is_initializing():
            count = inputs.size // features
            if self.axis_name is not None:
                count *= lax.axis_size(self.axis_name)
            unbiased = var * (count / max(count - 1, 1))
            keep, take = self.momentum, 1 - self.momentum
            running_mean.value = keep * running_mean.value + take * mean
            running_var.value = keep * running_var.value + take * unbiased
        return y.astype(self.dtype)


Normalized = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
    axis_name: str | None,
) -> Normalized:
    """Normalises by the batch's own statistics (Ioffe and Szegedy 2015, algorithm 1).

    Its gradient is written out, as in section 3 of that paper: derived by JAX from the forward
    pass, it reads the images a few times more. No gradient goes through the statistics returned.

    Args:
      x: images.
      scale: gamma.
      bias: beta.
      epsilon: added to the variance.
      axis_name: mapped axis over which the statistics are shared; None: those of the local batch.

    Returns:
      The normalised images, the mean and the biased variance.
    """
    return _normalize_forward(x, scale, bias, epsilon, axis_name)[0]


def _normalize_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[Normalized, Any]:
    mean, mean_of_squares = _mean_over_devices(
        (x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2))), axis_name
    )
    var = jnp.maximum(mean_of_squares - jnp.square(mean), 0)
    inverse_std = lax.rsqrt(var + epsilon)
    y = (x - mean) * (scale * inverse_std) + bias
    return (y, mean, var), (x, mean, inverse_std, scale)


def _normalize_backward(
    epsilon: float, axis_name: str | None, residuals: Any, cotangents: Normalized
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse_std, scale = residuals
    dy = cotangents[0]
    dbias = dy.sum((0, 1, 2))
    dscale = inverse_std * (dy * (x - mean)).sum((0, 1, 2))
    count = x.size // x.shape[-1]
    # The statistics' own gradients, from all the images that they were taken over.
    mean_dy, mean_dy_x = _mean_over_devices((dbias / count, dscale / count), axis_name)
    dx = (dy - mean_dy - (x - mean) * (inverse_std * mean_dy_x)) * (scale * inverse_std)
    return dx, dscale, dbias


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


def _mean_over_devices(values: Any, axis_name: str | None) -> Any:
    return values if axis_name is None else lax.pmean(values, axis_name)


@dataclasses.dataclass(frozen=True)
class Layers:
    """How all layers of a network are made.

    Attributes:
      weight_init: initial weights, a key of KERNEL_INITS.
      dtype, param_dtype: of computation; of parameters and BatchNorm statistics.
      axis_name: mapped axis over which BatchNorm shares its statistics; None: the local batch.
      convolve: what computes convolutions.
    """

    weight_init: InitName = "pytorch"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    convolve: Convolve = None

    def conv(self, features: int, kernel_size: int, strides: int, name: str) -> nn.Conv:
        """See `conv`."""
        return conv(
            features,
            kernel_size,
            strides,
            weight_init=self.weight_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            convolve=self.convolve,
            name=name,
        )

    def norm(self, name: str) -> BatchNorm:
        """See `BatchNorm`."""
        return BatchNorm(
            axis_name=self.axis_name, dtype=self.dtype, param_dtype=self.param_dtype, name=name
        )

    def linear(self, features: int, fan_in: int, name: str) -> nn.Dense:
        """See `linear`."""
        return linear(
            features,
            fan_in,
            weight_init=self.weight_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
