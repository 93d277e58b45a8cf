"""One linen ResNet for the whole design space of the paper's Figure 4(a).

A design is, for each residual layer i, the number of blocks B_i, the channels C_i, the kernel F_i
of the blocks' convolutions and the kernel K_i of the shortcut, and P, the average-pool kernel.
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flax_resnet.models.layers import Convolve, Dtype, InitName, Layers

# Output channels of a bottleneck block over its inner ones (He et al. 2016, table 1).
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclasses.dataclass(frozen=True)
class Design:
    """A point of the design space; figures per residual layer are tuples of equal length.

    Attributes:
      stage_sizes: B_i, residual blocks in layer i. Every layer but the first halves the image.
      stage_channels: C_i, channels of layer i (of a bottleneck: its inner channels).
      kernel_sizes: F_i, side of the blocks' square convolution kernels, odd.
      shortcut_kernels: K_i, side of the projection's kernel where the shape changes, odd.
      pool_size: P, side of the average pool before the linear layer; None: the whole map.
      block: 'basic' (two F x F) or 'bottleneck' (1x1, F x F, 1x1 with four times the channels).
      shortcut: where the shape changes, 'projection' (convolution and BatchNorm), 'pad' (every
        other pixel, new channels zero: He's option A); 'none' leaves out every shortcut, also
        the identities (a plain net).
      stem: 'cifar' (3x3, stride 1) or 'imagenet' (7x7, stride 2, then a 3x3 max pool, stride 2).
      bottleneck_stride: the convolution that halves the image in a bottleneck, '1x1' (the first,
        as in Figure 3) or '3x3' (what most libraries ship).
    """

    stage_sizes: tuple[int, ...]
    stage_channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    shortcut_kernels: tuple[int, ...]
    pool_size: int | None
    block: Literal["basic", "bottleneck"] = "basic"
    shortcut: Literal["projection", "pad", "none"] = "projection"
    stem: Literal["cifar", "imagenet"] = "cifar"
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"

    @property
    def stem_channels(self) -> int:
        """Channels of the stem: those of the first residual layer."""
        return self.stage_channels[0]


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + branch(x)), with BatchNorm after every convolution (He et al. 2016).

    Attributes:
      design: the network's design: kind of block, of shortcut, and where a bottleneck strides.
      channels: C_i.
      kernel_size: F_i.
      shortcut_kernel: K_i.
      strides: 2 halves the image, 1 keeps it.
      layers: how its layers are made.
    """

    design: Design
    channels: int
    kernel_size: int
    shortcut_kernel: int
    strides: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch new_height new_width new_channels"]:
        """Images through the branch, the shortcut and the addition."""
        branch = self._branch()
        x = inputs
        for index, (features, kernel_size, strides) in enumerate(branch, start=1):
            x = self.layers.conv(features, kernel_size, strides, f"conv{index}")(x)
            x = self.layers.norm(f"norm{index}")(x, train)
            if index < len(branch):
                x = nn.relu(x)
        if self.design.shortcut != "none":
            x = x + self._shortcut(inputs, x.shape[-1], train)
        return nn.relu(x)

    def _branch(self) -> list[tuple[int, int, int]]:
        """(features, kernel size, strides) of each convolution."""
        if self.design.block == "basic":
            return [
                (self.channels, self.kernel_size, self.strides),
                (self.channels, self.kernel_size, 1),
            ]
        in_first = self.design.bottleneck_stride == "1x1"
        return [
            (self.channels, 1, self.strides if in_first else 1),
            (self.channels, self.kernel_size, 1 if in_first else self.strides),
            (self.channels * EXPANSION["bottleneck"], 1, 1),
        ]

    def _shortcut(self, inputs: Array, features: int, train: bool) -> Array:
        if self.strides == 1 and inputs.shape[-1] == features:
            return inputs
        if self.design.shortcut == "pad":
            x = inputs[:, :: self.strides, :: self.strides]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
        conv = self.layers.conv(features, self.shortcut_kernel, self.strides, "shortcut_conv")
        return self.layers.norm("shortcut_norm")(conv(inputs), train)


class ResNet(nn.Module):
    """Stem, residual layers, average pool, linear layer (the paper's Figures 3 and 4(a)).

    Attributes:
      design: the architecture.
      num_classes: number of logits.
      weight_init: initial weights: 'pytorch' (PyTorch's defaults, the paper's) or 'he_normal'.
      dtype: dtype of the computation; logits are returned in `param_dtype`.
      param_dtype: dtype of parameters and BatchNorm statistics.
      axis_name: mapped axis over which BatchNorm shares its statistics; None: the local batch.
      convolve: what computes convolutions, in place of jax.lax.conv_general_dilated.
    """

    design: Design
    num_classes: int
    weight_init: InitName = "pytorch"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None
    convolve: Convolve = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Normalised images to logits; with `train`, `batch_stats` must be mutable."""
        design = self.design
        layers = Layers(
            self.weight_init, self.dtype, self.param_dtype, self.axis_name, self.convolve
        )
        x = self._stem(layers, images.astype(self.dtype), train)
        for stage, num_blocks in enumerate(design.stage_sizes):
            for block in range(num_blocks):
                x = ResidualBlock(
                    design,
                    channels=design.stage_channels[stage],
                    kernel_size=design.kernel_sizes[stage],
                    shortcut_kernel=design.shortcut_kernels[stage],
                    strides=2 if stage > 0 and block == 0 else 1,
                    layers=layers,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
        pool = (design.pool_size,) * 2 if design.pool_size else x.shape[1:3]
        x = nn.avg_pool(x, window_shape=pool, strides=pool)
        x = x.reshape(x.shape[0], -1)
        logits = layers.linear(self.num_classes, fan_in=x.shape[-1], name="head")(x)
        return logits.astype(self.param_dtype)

    def _stem(self, layers: Layers, images: Array, train: bool) -> Array:
        imagenet = self.design.stem == "imagenet"
        kernel_size, strides = (7, 2) if imagenet else (3, 1)
        x = layers.conv(self.design.stem_channels, kernel_size, strides, "stem_conv")(images)
        x = nn.relu(layers.norm("stem_norm")(x, train))
        if imagenet:
            padding: Any = ((1, 1), (1, 1))  # linen declares only its names for paddings
            x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=padding)
        return x
