"""Squeeze-and-excitation (Hu et al. 2018, arXiv 1709.01507, section 3)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.models.layers import Images, Layers

REDUCTION = 16  # section 6.3


def squeezed_channels(channels: int) -> int:
    """Channels between the two linear layers."""
    return max(channels // REDUCTION, 1)


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a number between 0 and 1, computed from the means of all channels.

    Attributes:
      layers: makes its two linear layers, which have biases.
    """

    layers: Layers

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """In the dtype of `x`, but for the means and what is computed from them."""
        channels = x.shape[-1]
        squeezed = squeezed_channels(channels)
        means = x.mean((1, 2), dtype=self.layers.param_dtype)
        y = nn.relu(self.layers.linear(squeezed, channels, name="squeeze")(means))
        y = jax.nn.sigmoid(self.layers.linear(channels, squeezed, name="excite")(y))
        return x * jnp.expand_dims(y, (1, 2)).astype(x.dtype)
