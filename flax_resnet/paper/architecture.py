"""A network as boxes to draw, from the layers of the module (Figure 4(a))."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from flax_resnet.models.resnet import ResNet
from flax_resnet.models.summary import ImageShape, Row, summarize

Shortcut = Literal["identity", "projection", "pad", "none"]


@dataclasses.dataclass(frozen=True)
class Box:
    """One box: a convolution with its BatchNorm, a pool or the linear layer.

    Attributes:
      text: such as '3x3 conv, 64, stride 2'.
      after: what follows in the same box, such as 'BatchNorm, ReLU'; '': nothing.
      params: trainable parameters, BatchNorm's included.
      output_shape: (height, width, channels), or (features,) of the linear layer.
    """

    text: str
    after: str
    params: int
    output_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class BlockDrawing:
    """A residual block, a pooled convolution, or consecutive identical ones.

    Attributes:
      branch: its convolutions in order.
      shortcut: its kind.
      projection: the box on a 'projection' shortcut, else None.
      repeats: number of identical blocks.
      activation: what follows the addition.
    """

    branch: tuple[Box, ...]
    shortcut: Shortcut
    projection: Box | None
    repeats: int = 1
    activation: str = "ReLU"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network.

    Attributes:
      image_shape: (height, width, channels) of the images.
      stem: boxes before the first stage.
      stages: the blocks of each stage; identical ones are drawn once.
      head: boxes after the last stage.
      params: trainable parameters of the network.
    """

    image_shape: ImageShape
    stem: tuple[Box, ...]
    stages: tuple[tuple[BlockDrawing, ...], ...]
    head: tuple[Box, ...]
    params: int


def read_architecture(model: ResNet, image_shape: ImageShape) -> Architecture:
    """The boxes of a network, from its layer table."""
    summary = summarize(model, image_shape)
    groups = {
        name: list(rows)
        for name, rows in itertools.groupby(summary.rows, key=lambda row: row.path.split("/")[0])
    }
    outside = [row for name, rows in groups.items() if not name.startswith("stage") for row in rows]
    activation = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}[model.design.activation]
    stem = _boxes([row for row in outside if row.path.startswith("stem")], activation)
    head = _boxes([row for row in outside if row.path.startswith("head")], activation, last=False)
    shape = stem[-1].output_shape
    stages: dict[str, list[BlockDrawing]] = {}
    for name, rows in groups.items():
        if name.startswith("stage"):
            plain = model.design.shortcut == "none" or name.endswith("entry")
            block = _block(rows, shape, activation, plain)
            stages.setdefault(name.split("_")[0], []).append(block)
            shape = block.branch[-1].output_shape
    return Architecture(
        image_shape=image_shape,
        stem=stem,
        stages=tuple(_merged(blocks) for blocks in stages.values()),
        head=head,
        params=summary.params,
    )


def _block(
    rows: Sequence[Row], input_shape: tuple[int, ...], activation: str, plain: bool
) -> BlockDrawing:
    on_shortcut = [row for row in rows if row.path.split("/")[1].startswith("shortcut")]
    # The activation follows the addition, not the last convolution; a plain net adds nothing.
    branch = _boxes(
        [row for row in rows if row not in on_shortcut],
        activation,
        last=plain and rows[-1].kind == "BatchNorm",
    )
    projection = None
    if plain:
        shortcut: Shortcut = "none"
    elif on_shortcut:
        shortcut = "projection"
        (projection,) = _boxes(on_shortcut, activation, last=False)
    else:
        shortcut = "identity" if branch[-1].output_shape == input_shape else "pad"
    return BlockDrawing(branch, shortcut, projection, activation=activation)


def _boxes(rows: Sequence[Row], activation: str, last: bool = True) -> tuple[Box, ...]:
    """One box per layer; a BatchNorm shares the box of the layer before it.

    Args:
      rows: the layers.
      activation: what follows each BatchNorm.
      last: whether it follows the last one, too.
    """
    boxes: list[Box] = []
    for row in rows:
        if row.kind == "BatchNorm":
            before = boxes[-1]
            boxes[-1] = dataclasses.replace(
                before, after=f"BatchNorm, {activation}", params=before.params + row.params
            )
        else:
            after = activation if row.kind == "WhiteningConv" else ""
            boxes.append(Box(_words(row), after, row.params, row.output_shape))
    normalized = max((i for i, box in enumerate(boxes) if box.after), default=-1)
    if not last and normalized >= 0:
        boxes[normalized] = dataclasses.replace(boxes[normalized], after="BatchNorm")
    return tuple(boxes)


def _words(row: Row) -> str:
    kinds = {"Conv": "conv", "WhiteningConv": "whitening"}
    if row.kind in kinds:
        kernel, rest = row.description.split(", ", 1)
        return f"{kernel} {kinds[row.kind]}, {rest}"
    if row.kind == "SqueezeExcitation":
        return f"squeeze-excitation, {row.description}"
    names = {"Dense": "linear", "MaxPool": "max pool", "AvgPool": "average pool"}
    return f"{names[row.kind]}, {row.description}"


def _merged(blocks: Sequence[BlockDrawing]) -> tuple[BlockDrawing, ...]:
    """Consecutive identical blocks merged into one."""
    return tuple(
        dataclasses.replace(block, repeats=len(list(alike)))
        for block, alike in itertools.groupby(blocks)
    )
