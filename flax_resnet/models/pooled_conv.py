"""A convolution that a max pool follows, in place of one that strides."""

import jax
from flax import linen as nn

from flax_resnet.models.layers import Images, Layers, NewImages, TilePool


class PooledConv(nn.Module):
    """F x F convolution, max pool of 2x2, BatchNorm, activation (Jordan 2024, section 3.1).

    The pool stands before BatchNorm, which then has a quarter of the pixels to normalize.

    Attributes:
      features: channels of the output.
      kernel_size: F.
      layers: makes its layers.
    """

    features: int
    kernel_size: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Images, train: bool) -> NewImages:
        """Halves height and width, rounded down."""
        pooled: jax.Array = TilePool(2, name="pool")(
            self.layers.conv(self.features, self.kernel_size, name="conv")(x)
        )
        return self.layers.activate(self.layers.norm(name="norm")(pooled, train))
