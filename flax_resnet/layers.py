"""Convolution, BatchNorm, linear layer and initial weights, as the paper's PyTorch has them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

Dtype = Any
InitName = Literal["pytorch", "he_normal"]

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

        if train:
            mean, var, count = self._batch_statistics(inputs)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                keep, take = self.momentum, 1 - self.momentum
                running_mean.value = keep * running_mean.value + take * mean
                running_var.value = keep * running_var.value + take * unbiased
        else:
            mean, var = running_mean.value, running_var.value

        normalised = (inputs.astype(self.param_dtype) - mean) * lax.rsqrt(var + self.epsilon)
        return (normalised * scale + bias).astype(self.dtype)

    def _batch_statistics(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """Mean and biased variance [channels], and the number of values behind each."""
        x = inputs.astype(self.param_dtype)
        mean = x.mean((0, 1, 2))
        mean_of_squares = jnp.square(x).mean((0, 1, 2))
        count = inputs.size // inputs.shape[-1]
        if self.axis_name is not None:
            mean, mean_of_squares = lax.pmean((mean, mean_of_squares), self.axis_name)
            count *= lax.axis_size(self.axis_name)
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0)
        return mean, var, count
