"""Residual blocks: act(shortcut(x) + branch(x)), BatchNorm after every convolution."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.models.designs import Design
from flax_resnet.models.layers import Images, Layers, NewImages
from flax_resnet.models.squeeze_excitation import SqueezeExcitation
from flax_resnet.models.stochastic_depth import drop_branch


class ResidualBlock(nn.Module):
    """The addition and the shortcut (He et al. 2016, section 3); subclasses give the branch.

    Attributes:
      design: the network's design.
      stage: index of the block's stage, from 0.
      strides: 2 halves the image, 1 keeps it.
      layers: makes its layers.
      drop_rate: probability that training leaves out the branch for an image.
    """

    design: Design
    stage: int
    strides: int = 1
    layers: Layers = Layers()
    drop_rate: float = 0.0

    expansion: ClassVar[int]  # output channels over the stage's channels

    @nn.compact
    def __call__(self, inputs: Images, train: bool) -> NewImages:
        """Images through the branch, the shortcut and the addition."""
        x = self.branch(inputs, train)
        if self.design.squeeze_excitation == "blocks":
            x = SqueezeExcitation(self.layers, name="se")(x)
        if self.drop_rate and train:
            x = drop_branch(x, self.drop_rate, self.make_rng("dropout"))
        if self.design.shortcut != "none":
            x = x + self._shortcut(inputs, x.shape[-1], train)
        return self.layers.activate(x)

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """The block without shortcut, addition and last activation."""
        raise NotImplementedError

    def conv_norm(
        self,
        x: jax.Array,
        train: bool,
        index: int,
        features: int,
        kernel_size: int,
        strides: int,
        last: bool = False,
    ) -> jax.Array:
        """The branch's convolution number `index`, from 1, and its BatchNorm."""
        scale = 0.0 if last and self.design.zero_last_scale else 1.0
        x = self.layers.conv(features, kernel_size, strides, name=f"conv{index}")(x)
        return self.layers.norm(initial_scale=scale, name=f"norm{index}")(x, train)

    def _shortcut(self, x: jax.Array, features: int, train: bool) -> jax.Array:
        if self.strides == 1 and x.shape[-1] == features:
            return x
        if self.design.shortcut == "pad":
            x = x[:, :: self.strides, :: self.strides]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
        kernel_size = self.design.shortcut_kernels[self.stage]
        x = self.layers.conv(features, kernel_size, self.strides, name="shortcut_conv")(x)
        return self.layers.norm(name="shortcut_norm")(x, train)


class BasicBlock(ResidualBlock):
    """Two F x F convolutions."""

    expansion: ClassVar[int] = 1

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """F x F, which strides; F x F."""
        channels = self.design.stage_channels[self.stage]
        kernel_size = self.design.kernel_sizes[self.stage]
        x = self.conv_norm(x, train, 1, channels, kernel_size, self.strides)
        x = self.layers.activate(x)
        return self.conv_norm(x, train, 2, channels, kernel_size, 1, last=True)


class Bottleneck(ResidualBlock):
    """1x1, F x F, 1x1 with four times the channels (He et al. 2016, figure 5)."""

    expansion: ClassVar[int] = 4

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1 and F x F, one of which strides; 1x1."""
        channels = self.design.stage_channels[self.stage]
        kernel_size = self.design.kernel_sizes[self.stage]
        strides = (self.strides, 1) if self.design.bottleneck_stride == "1x1" else (1, self.strides)
        x = self.layers.activate(self.conv_norm(x, train, 1, channels, 1, strides[0]))
        x = self.layers.activate(self.conv_norm(x, train, 2, channels, kernel_size, strides[1]))
        return self.conv_norm(x, train, 3, channels * self.expansion, 1, 1, last=True)


class SingleBlock(ResidualBlock):
    """One F x F convolution."""

    expansion: ClassVar[int] = 1

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """F x F, which strides."""
        channels = self.design.stage_channels[self.stage]
        kernel_size = self.design.kernel_sizes[self.stage]
        return self.conv_norm(x, train, 1, channels, kernel_size, self.strides, last=True)


BLOCKS: dict[str, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "single": SingleBlock,
}
