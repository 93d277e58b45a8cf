"""Parameters and multiply-adds of a design by formula, without building the network.

What summary.py counts by tracing, to the last unit, some thousand times faster: enough to look
through a whole design space.
"""

import dataclasses
import functools

from flax_resnet.models.blocks import BLOCKS
from flax_resnet.models.designs import Design

ImageShape = tuple[int, int, int]
MapShape = tuple[int, int]

_NORM = 2  # parameters a channel of BatchNorm: scale and bias


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


def count(design: Design, num_classes: int, image_shape: ImageShape) -> Cost:
    """The cost of a whole network.

    Args:
      design: any; its average pool is at most as large as the map it takes.
      num_classes: number of logits.
      image_shape: (height, width, channels).
    """
    *sides, channels = image_shape
    imagenet = design.stem == "imagenet"
    shape = _halved((sides[0], sides[1])) if imagenet else (sides[0], sides[1])
    cost = _conv(channels, design.stem_channels, 7 if imagenet else 3, shape)
    if imagenet:
        shape = _halved(shape)  # the max pool
    channels = design.stem_channels
    for stage, (num_blocks, stage_channels) in enumerate(
        zip(design.stage_sizes, design.stage_channels, strict=True)
    ):
        cost += _layer(
            design.block,
            design.shortcut,
            design.bottleneck_stride,
            num_blocks,
            channels,
            stage_channels,
            design.kernel_sizes[stage],
            design.shortcut_kernels[stage],
            2 if stage > 0 else 1,
            shape,
        )
        channels = stage_channels * BLOCKS[design.block].expansion
        shape = _halved(shape) if stage > 0 else shape
    pool = (design.pool_size,) * 2 if design.pool_size else shape
    features = channels * (shape[0] // pool[0]) * (shape[1] // pool[1])
    return cost + Cost((features + 1) * num_classes, features * num_classes)


def map_shape(num_layers: int, image_shape: ImageShape, stem: str = "cifar") -> MapShape:
    """(height, width) of the map that the average pool takes."""
    shape = image_shape[:2]
    for _ in range(num_layers - 1 + (2 if stem == "imagenet" else 0)):
        shape = _halved(shape)
    return shape


def depth(design: Design) -> int:
    """Layers with weights on the way from image to logits, shortcuts aside: ResNet-20's 20."""
    convolutions = 2 if design.block == "basic" else 3
    return 2 + convolutions * sum(design.stage_sizes)


def _halved(shape: MapShape) -> MapShape:
    """Output of a convolution of stride 2: odd kernels padded by half give the upper half."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def _conv(channels: int, features: int, kernel_size: int, outputs: MapShape) -> Cost:
    """A convolution without bias and its BatchNorm; `outputs` is the map that it makes."""
    weights = kernel_size**2 * channels * features
    return Cost(weights + _NORM * features, weights * outputs[0] * outputs[1])


@functools.cache  # the designs of a space share few different layers
def _layer(
    block: str,
    shortcut: str,
    bottleneck_stride: str,
    num_blocks: int,
    channels: int,
    stage_channels: int,
    kernel_size: int,
    shortcut_kernel: int,
    strides: int,
    shape: MapShape,
) -> Cost:
    """A residual layer: its first block may change the shape, the others keep it."""
    features = stage_channels * BLOCKS[block].expansion
    outputs = _halved(shape) if strides == 2 else shape
    first_outputs = shape if block == "bottleneck" and bottleneck_stride == "3x3" else outputs
    cost = _branch(block, channels, stage_channels, kernel_size, first_outputs, outputs)
    if shortcut == "projection" and (strides == 2 or channels != features):
        cost += _conv(channels, features, shortcut_kernel, outputs)
    other = _branch(block, features, stage_channels, kernel_size, outputs, outputs)
    others = num_blocks - 1
    return cost + Cost(others * other.params, others * other.multiply_adds)


def _branch(
    block: str,
    channels: int,
    stage_channels: int,
    kernel_size: int,
    first_outputs: MapShape,
    outputs: MapShape,
) -> Cost:
    """The convolutions of a block; `first_outputs` is the map that the first one makes."""
    if block == "basic":
        return _conv(channels, stage_channels, kernel_size, outputs) + _conv(
            stage_channels, stage_channels, kernel_size, outputs
        )
    return (
        _conv(channels, stage_channels, 1, first_outputs)
        + _conv(stage_channels, stage_channels, kernel_size, outputs)
        + _conv(stage_channels, stage_channels * BLOCKS[block].expansion, 1, outputs)
    )
