"""Batch normalization with PyTorch's running variance, and a gradient written by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from flax_resnet.models.cpu.fence import materialize
from flax_resnet.models.cpu.onednn import largest_divisor

Dtype = Any
# (normalized images, mean, biased variance)
Normalized = tuple[jax.Array, jax.Array, jax.Array]

MAX_ROWS = 7  # of 8 or more, XLA makes several loops, which take twice as long


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy 2015, algorithms 1 and 2) as in PyTorch.

    Normalizes with the biased batch variance, but feeds the running average the unbiased one,
    n / (n - 1) of it, which flax.linen.BatchNorm has no option for. Statistics are computed and
    kept in `param_dtype` whatever the compute dtype. The batch variance is taken around the running
    mean, or around 0 for images of 16 bits: exact to the images' rounding, or to float32's once the
    running mean has followed the batch's, after some 50 steps.

    Attributes:
      momentum: share of the old running average that is kept; PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance before the square root.
      initial_scale: what the scale starts from.
      use_scale: whether there is a scale; without, it is 1.
      axis_name: mapped axis over which the statistics are shared; None: those of the local batch.
      dtype: dtype of the output.
      param_dtype: dtype of scale, bias, running mean and variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    initial_scale: float = 1.0
    use_scale: bool = True
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Normalizes over batch, height and width; `train` uses and records the batch's own."""
        features = inputs.shape[-1]
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, (features,), self.param_dtype
        )
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), self.param_dtype)
        scale = jnp.ones((features,), self.param_dtype)
        if self.use_scale:
            initial = nn.initializers.constant(self.initial_scale)
            scale = self.param("scale", initial, (features,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.param_dtype)

        if not train:
            x = inputs.astype(self.param_dtype)
            factor = scale * lax.rsqrt(running_var.value + self.epsilon)
            return ((x - running_mean.value) * factor + bias).astype(self.dtype)
        # Images of 16 bits have lost more digits to a distant mean than float32 sums of them do.
        shift = running_mean.value if inputs.dtype.itemsize > 2 else None
        normalized: Any = normalize_batch(
            inputs, scale, bias, shift, self.epsilon, self.axis_name, self.dtype
        )
        y, mean, var = normalized
        if not self.is_initializing():
            count = inputs.size // features
            if self.axis_name is not None:
                count *= lax.axis_size(self.axis_name)
            unbiased = var * (count / max(count - 1, 1))
            keep, take = self.momentum, 1 - self.momentum
            running_mean.value = keep * running_mean.value + take * mean
            running_var.value = keep * running_var.value + take * unbiased
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def normalize_batch(
    x: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    shift: Float[Array, " channels"] | None,
    epsilon: float,
    axis_name: str | None,
    dtype: Dtype,
) -> Normalized:
    """Normalizes by the batch's own statistics (Ioffe and Szegedy 2015, algorithm 1).

    The variance is E[(x - shift)^2] - E[x - shift]^2, which is exact for any shift but loses
    digits as the mean's distance from the shift grows: at 300 standard deviations 2% in float32.
    Unlike two passes, the mean and then the variance, it reads the images once.

    The gradient is written out, as in section 3 of the paper: derived by JAX from the forward
    pass, it reads the images a few times more. None goes through the statistics returned.

    Args:
      x: images.
      scale: gamma; what is computed has its dtype.
      bias: beta.
      shift: a guess at the mean, the same on all devices of `axis_name`; the result does not
        depend on it, so it has no gradient. None is 0, which XLA's CPU backend sums faster.
      epsilon: added to the variance.
      axis_name: mapped axis over which the statistics are shared; None: those of the local batch.
      dtype: of the normalized images.

    Returns:
      The normalized images, the mean and the biased variance.
    """
    return _forward(x, scale, bias, shift, epsilon, axis_name, dtype)[0]


@functools.partial(jax.jit, static_argnums=(4, 5, 6))  # traced once for all layers of a shape
def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    shift: jax.Array | None,
    epsilon: float,
    axis_name: str | None,
    dtype: Dtype,
) -> tuple[Normalized, Any]:
    images = x.astype(scale.dtype)
    shifted = images if shift is None else images - shift
    count = x.size // x.shape[-1]
    total, total_of_squares = _sums(shifted, shifted, from_16_bits=shift is None)
    mean_shifted, mean_of_squares = _mean_over_devices(
        (total / count, total_of_squares / count), axis_name
    )
    mean = mean_shifted if shift is None else shift + mean_shifted
    var = jnp.maximum(mean_of_squares - jnp.square(mean_shifted), 0)
    inverse_std = lax.rsqrt(var + epsilon)
    y = (images - mean) * (scale * inverse_std) + bias
    return (y.astype(dtype), mean, var), (x, mean, inverse_std, scale, shift)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _backward(
    epsilon: float, axis_name: str | None, dtype: Dtype, residuals: Any, cotangents: Normalized
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    x, mean, inverse_std, scale, shift = residuals
    dy, mean = lax.platform_dependent(cotangents[0], mean, cpu=_fenced, default=lambda *both: both)
    dy = dy.astype(scale.dtype)
    images = x.astype(scale.dtype)
    if shift is None:
        dbias, of_products = _sums(dy, images, from_16_bits=True)
        dscale = inverse_std * (of_products - mean * dbias)
    else:
        dbias, of_products = _sums(dy, images - mean, from_16_bits=False)
        dscale = inverse_std * of_products
    count = x.size // x.shape[-1]
    # The statistics' own gradients, from all the images that they were taken over.
    mean_dy, mean_dy_x = _mean_over_devices((dbias / count, dscale / count), axis_name)
    dx = (dy - mean_dy - (images - mean) * (inverse_std * mean_dy_x)) * (scale * inverse_std)
    return dx.astype(x.dtype), dscale, dbias, None


normalize_batch.defvjp(_forward, _backward)


def _fenced(dy: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both; XLA's CPU backend then writes no copies of images for their readers.

    It would write 16 bits out as 32, and keep x - mean of the forward pass, besides x. The fence of
    the latter reads a pixel of dy, which several devices would have to send each other.
    """
    if jax.device_count() == 1:
        mean = materialize(lambda both: both[1], (dy, mean))
    return lax.optimization_barrier(dy), mean


def _sums(
    a: Float[Array, "batch height width channels"],
    b: Float[Array, "batch height width channels"],
    *,
    from_16_bits: bool,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """The sums of a and of a * b over all but the channels.

    What XLA's CPU backend sums lies in memory. With `from_16_bits`, both were images of 16 bits, of
    which it would write out copies of 32, and read them once for each sum.
    """

    def plain(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        return a.sum((0, 1, 2)), (a * b).sum((0, 1, 2))

    def by_rows(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Adds up a few rows first, in one loop that writes both sums."""
        batch, height, width, channels = a.shape
        rows = largest_divisor(height, MAX_ROWS)
        a, b = (c.reshape(batch, rows, height // rows, width, channels) for c in (a, b))
        terms = [(a[:, row], a[:, row] * b[:, row]) for row in range(rows)]
        of_rows = [sum(each[1:], start=each[0]) for each in zip(*terms, strict=True)]
        total, total_of_products = jnp.stack(of_rows).sum((1, 2, 3))
        return total, total_of_products

    return lax.platform_dependent(a, b, cpu=by_rows if from_16_bits else plain, default=plain)


def _mean_over_devices(values: Any, axis_name: str | None) -> Any:
    return values if axis_name is None else lax.pmean(values, axis_name)
