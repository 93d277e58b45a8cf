"""Parameters and multiply-adds of a design by formula, without building the network.

What summary.py counts by tracing, to the last unit, some thousand times faster: enough to look
through a whole design space.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

from flax_resnet.models.blocks import BLOCKS
from flax_resnet.models.designs import Design
from flax_resnet.models.squeeze_excitation import squeezed_channels
from flax_resnet.models.whitening import PATCH, features_of

ImageShape = tuple[int, int, int]
MapShape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network, or a part of it, takes.

    Attributes:
      params: number of trainable parameters.
      multiply_adds: of the forward pass of one image, pixels of the padding included.
    """

    params: int
    multiply_adds: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.multiply_adds + other.multiply_adds)


class Convolution(NamedTuple):
    """A square convolution.

    Attributes:
      kernel_size: side of the kernel in pixels.
      strides: stride in both directions.
      channels: channels of its input.
      features: channels of its output.
      outputs: (height, width) of its output.
    """

    kernel_size: int
    strides: int
    channels: int
    features: int
    outputs: MapShape

    @property
    def weights(self) -> int:
        """Parameters of its kernel."""
        return self.kernel_size**2 * self.channels * self.features

    @property
    def multiply_adds(self) -> int:
        """Of one image, forward."""
        return self.weights * self.outputs[0] * self.outputs[1]


class _Part:
    """Convolutions, and their cost with `per_feature` parameters a feature, added up once.

    These are BatchNorm's scale and bias, or a bias alone.
    """

    def __init__(self, *convolutions: Convolution, per_feature: int) -> None:
        self.convolutions = convolutions
        self.params = sum(c.weights + per_feature * c.features for c in convolutions)
        self.multiply_adds = sum(c.multiply_adds for c in convolutions)


def count(design: Design, num_classes: int, image_shape: ImageShape) -> Cost:
    """The cost of a whole network.

    Args:
      design: any; its last pool is at most as large as the map it takes.
      num_classes: number of logits.
      image_shape: (height, width, channels).
    """
    features = design.stage_channels[-1] * BLOCKS[design.block].expansion
    if design.pool_size:
        height, width = map_shape(design, image_shape)
        features *= (height // design.pool_size) * (width // design.pool_size)
    params, multiply_adds = (features + design.head_bias) * num_classes, features * num_classes
    for times, part in _parts(design, image_shape):
        params += times * part.params
        multiply_adds += times * part.multiply_adds
    for channels in _excited(design, image_shape):
        squeezed = squeezed_channels(channels)
        params += 2 * channels * squeezed + channels + squeezed
        multiply_adds += 2 * channels * squeezed
    return Cost(params, multiply_adds)


def convolutions(design: Design, image_shape: ImageShape) -> list[Convolution]:
    """All convolutions of the network for images of (height, width, channels)."""
    return [c for times, part in _parts(design, image_shape) for c in part.convolutions * times]


def map_shape(design: Design, image_shape: ImageShape) -> MapShape:
    """(height, width) of the map that the last pool takes; 0 where nothing is left of it."""
    shape = _stem(design.stem, design.stem_channels, image_shape, per_feature=2)[1]
    if design.downsample == "pool":
        return shape[0] >> len(design.stage_sizes), shape[1] >> len(design.stage_sizes)
    for _ in design.stage_sizes[1:]:
        shape = _strided(shape, 2)
    return shape


def depth(design: Design) -> int:
    """Layers with weights on the way from image to logits, shortcuts aside: ResNet-20's 20."""
    convolutions = {"single": 1, "basic": 2, "bottleneck": 3}[design.block]
    pooled = len(design.stage_sizes) if design.downsample == "pool" else 0
    return 2 + convolutions * sum(design.stage_sizes) + pooled


def _excited(design: Design, image_shape: ImageShape) -> list[int]:
    """The channels of each map that squeeze-and-excitation scales."""
    if design.squeeze_excitation == "stem":
        stem, _ = _stem(design.stem, design.stem_channels, image_shape, per_feature=2)
        return [stem.convolutions[0].features]
    if design.squeeze_excitation == "none":
        return []
    expansion = BLOCKS[design.block].expansion
    stages = zip(design.stage_sizes, design.stage_channels, strict=True)
    return [expansion * channels for blocks, channels in stages for _ in range(blocks)]


def _strided(shape: MapShape, strides: int) -> MapShape:
    """Output of a convolution: odd kernels padded by half give the upper half at stride 2."""
    return -(-shape[0] // strides), -(-shape[1] // strides)


def _parts(design: Design, image_shape: ImageShape) -> Iterator[tuple[int, _Part]]:
    """Stem and blocks in their order; equal blocks in a row once, with how many they are."""
    per_feature = 1 + design.norm_scale
    stem, shape = _stem(design.stem, design.stem_channels, image_shape, per_feature)
    yield 1, stem
    kind = design.block, design.shortcut, design.bottleneck_stride, per_feature
    channels = stem.convolutions[0].features
    for stage, num_blocks in enumerate(design.stage_sizes):
        strides = 2 if design.downsample == "stride" and stage > 0 else 1
        stage_channels = design.stage_channels[stage]
        sizes = stage_channels, design.kernel_sizes[stage], design.shortcut_kernels[stage]
        if design.downsample == "pool":
            pooled = Convolution(sizes[1], 1, channels, stage_channels, shape)
            yield 1, _Part(pooled, per_feature=per_feature)
            channels, shape = stage_channels, (shape[0] // 2, shape[1] // 2)
        yield 1, _block(kind, sizes, strides, channels, shape)
        shape = _strided(shape, strides)
        channels = stage_channels * BLOCKS[design.block].expansion
        if num_blocks > 1:
            yield num_blocks - 1, _block(kind, sizes, 1, channels, shape)


@functools.cache
def _stem(
    stem: str, features: int, image_shape: ImageShape, per_feature: int
) -> tuple[_Part, MapShape]:
    """The stem and the (height, width) of its output."""
    *sides, channels = image_shape
    if stem == "whiten":
        shape = sides[0] - PATCH + 1, sides[1] - PATCH + 1
        whitening = Convolution(PATCH, 1, channels, features_of(channels), shape)
        return _Part(whitening, per_feature=1), shape
    kernel_size, strides = (7, 2) if stem == "imagenet" else (3, 1)
    shape = _strided((sides[0], sides[1]), strides)
    part = _Part(
        Convolution(kernel_size, strides, channels, features, shape), per_feature=per_feature
    )
    return part, _strided(shape, 2) if stem == "imagenet" else shape  # the max pool


@functools.cache  # the designs of a space share few different blocks
def _block(
    kind: tuple[str, str, str, int],
    sizes: tuple[int, int, int],
    strides: int,
    channels: int,
    shape: MapShape,
) -> _Part:
    """A block.

    Args:
      kind: the design's block, shortcut and bottleneck_stride, and BatchNorm's parameters a
        feature.
      sizes: the stage's channels, kernel_size and shortcut_kernel.
      strides: 2 halves the image, 1 keeps it.
      channels: channels of its input.
      shape: (height, width) of its input.
    """
    block, shortcut, bottleneck_stride, per_feature = kind
    inner, kernel_size, shortcut_kernel = sizes
    features = inner * BLOCKS[block].expansion
    if block == "single":
        branch = [(kernel_size, strides, inner)]
    elif block == "basic":
        branch = [(kernel_size, strides, inner), (kernel_size, 1, inner)]
    else:
        first, second = (strides, 1) if bottleneck_stride == "1x1" else (1, strides)
        branch = [(1, first, inner), (kernel_size, second, inner), (1, 1, features)]
    made = []
    x_channels, x_shape = channels, shape
    for kernel_size, conv_strides, conv_features in branch:
        x_shape = _strided(x_shape, conv_strides)
        made.append(Convolution(kernel_size, conv_strides, x_channels, conv_features, x_shape))
        x_channels = conv_features
    if shortcut == "projection" and (strides == 2 or channels != features):
        made.append(Convolution(shortcut_kernel, strides, channels, features, x_shape))
    return _Part(*made, per_feature=per_feature)
