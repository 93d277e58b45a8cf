"""The paper's design space (Figure 4(a)): which residual networks fit a number of parameters.

The task that the paper answers, the highest CIFAR-10 accuracy of a ResNet under 5,000,000
parameters, is a search of this space.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Literal

from flax_resnet.models.cost import Cost, ImageShape, count, depth, map_shape
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError

CIFAR_CLASSES, CIFAR_SHAPE = 10, (32, 32, 3)
TASK_PARAMS = 5_000_000  # the paper's bound
MOST_DESIGNS = 2_000_000  # some 20 seconds of counting, and 2 GiB of candidates

RankBy = Literal["multiply-adds", "depth", "params"]


@dataclasses.dataclass(frozen=True)
class Space:
    """Ranges of Figure 4(a)'s hyperparameters; every combination is a design.

    Attributes:
      num_layers: N, residual layers.
      blocks: B_i, blocks of a layer, for each layer on its own.
      first_channels: C_1, channels of the first layer and of the stem.
      growths: C_i over C_(i-1), one factor from 1 on for all layers of a design; channels are
        rounded to whole numbers.
      kernel_sizes: F_i, odd.
      shortcut_kernels: K_i, odd.
      mixed_kernels: F_i and K_i for each layer on their own; otherwise one for all layers.
      pool_sizes: P; None, or one of the map's own size: the whole map. Larger ones make no design.
      block: 'basic' or 'bottleneck', of all designs.
      shortcut: 'projection', or 'pad' and 'none', which have no K.
    """

    num_layers: tuple[int, ...] = (3, 4)
    blocks: tuple[int, ...] = (1, 2, 3, 4)
    first_channels: tuple[int, ...] = tuple(range(32, 97, 8))
    growths: tuple[float, ...] = (2.0,)
    kernel_sizes: tuple[int, ...] = (3,)
    shortcut_kernels: tuple[int, ...] = (1, 3)
    mixed_kernels: bool = False
    pool_sizes: tuple[int | None, ...] = (None,)
    block: Literal["basic", "bottleneck"] = "basic"
    shortcut: Literal["projection", "pad", "none"] = "projection"

    def size(self, image_shape: ImageShape = CIFAR_SHAPE) -> int:
        """How many designs there are, without making them."""
        return sum(
            len(set(self.blocks)) ** n * math.prod(map(len, self._choices(n, image_shape)))
            for n in set(self.num_layers)
        )

    def designs(self, image_shape: ImageShape = CIFAR_SHAPE) -> Iterator[Design]:
        """Every design once, for images of (height, width, channels)."""
        for n in sorted(set(self.num_layers)):
            sizes = itertools.product(sorted(set(self.blocks)), repeat=n)
            for stage_sizes, channels, kernels, shortcuts, pool in itertools.product(
                sizes, *self._choices(n, image_shape)
            ):
                yield Design(
                    stage_sizes,
                    channels,
                    kernels,
                    shortcuts,
                    pool,
                    block=self.block,
                    shortcut=self.shortcut,
                )

    def _choices(self, n: int, image_shape: ImageShape) -> tuple[list, list, list, list]:
        """For N = n: the different tuples of C_i, of F_i and of K_i, and P."""
        channels = {
            tuple(round(first * growth**i) for i in range(n))
            for first, growth in itertools.product(self.first_channels, self.growths)
        }
        kernels = self._kernels(self.kernel_sizes, n)
        shortcuts = [(1,) * n]
        if self.shortcut == "projection":
            shortcuts = self._kernels(self.shortcut_kernels, n)
            if self.block == "basic":
                # Layer 1 keeps the shape, so K_1 acts nowhere: it is written as K_2.
                shortcuts = sorted({(k[1], *k[1:]) for k in shortcuts}) if n > 1 else [(1,)]
        whole = map_shape(n, image_shape)
        pools = {None if (p, p) == whole else p for p in self.pool_sizes}
        fitting = [p for p in pools if p is None or p <= min(whole)]
        return sorted(channels), kernels, shortcuts, sorted(fitting, key=lambda p: p or math.inf)

    def _kernels(self, sides: tuple[int, ...], n: int) -> list[tuple[int, ...]]:
        if self.mixed_kernels:
            return list(itertools.product(sorted(set(sides)), repeat=n))
        return [(side,) * n for side in sorted(set(sides))]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A design that fits.

    Attributes:
      design: the design.
      params: number of trainable parameters.
      multiply_adds: of the forward pass of one image.
      depth: layers with weights on the way from image to logits.
    """

    design: Design
    params: int
    multiply_adds: int
    depth: int


def candidate(
    design: Design, num_classes: int = CIFAR_CLASSES, image_shape: ImageShape = CIFAR_SHAPE
) -> Candidate:
    """A design with its figures."""
    cost = count(design, num_classes, image_shape)
    return Candidate(design, cost.params, cost.multiply_adds, depth(design))


def explore(
    space: Space,
    max_params: int,
    num_classes: int = CIFAR_CLASSES,
    image_shape: ImageShape = CIFAR_SHAPE,
    rank_by: RankBy = "multiply-adds",
) -> list[Candidate]:
    """The designs of a space of at most `max_params` parameters, the highest ranked first.

    Args:
      space: the ranges.
      max_params: the most trainable parameters.
      num_classes: number of logits.
      image_shape: (height, width, channels).
      rank_by: the most 'multiply-adds' (computation that the budget buys; ties by depth), the
        greatest 'depth' (ties by multiply-adds) or the most 'params'.

    Raises:
      UserError: the space has more than MOST_DESIGNS designs.
    """
    size = space.size(image_shape)
    if size > MOST_DESIGNS:
        raise UserError(
            f"the ranges give {size:,} designs, more than the {MOST_DESIGNS:,} that are counted "
            "at a time: narrow them"
        )
    found = (candidate(design, num_classes, image_shape) for design in space.designs(image_shape))
    return sorted((c for c in found if c.params <= max_params), key=_rank_keys[rank_by])


# The last parts of a key only make the order of equals the same everywhere.
_rank_keys = {
    "multiply-adds": lambda c: (-c.multiply_adds, -c.depth, c.params, c.design.stage_sizes),
    "depth": lambda c: (-c.depth, -c.multiply_adds, c.params, c.design.stage_sizes),
    "params": lambda c: (-c.params, -c.multiply_adds, -c.depth, c.design.stage_sizes),
}

# The paper's own design as a Space writes it: its P of 4 is the whole map of a 32 x 32 image.
PAPER_DESIGN = dataclasses.replace(MODELS["revised"], pool_size=None)


def describe(design: Design) -> str:
    """A design in the paper's letters: 'B 1,1,1,1; C 64,128,256,512; F 3; K 1; P whole map'."""
    parts = {"B": listed(design.stage_sizes), "C": listed(design.stage_channels)}
    parts["F"] = shortened(design.kernel_sizes)
    if design.shortcut == "projection":
        parts["K"] = shortened(design.shortcut_kernels)
    parts["P"] = str(design.pool_size or "whole map")
    return "; ".join(f"{letter} {figures}" for letter, figures in parts.items())


def listed(values: tuple[int, ...]) -> str:
    """(4, 4, 3) as '4,4,3'."""
    return ",".join(map(str, values))


def shortened(values: tuple[int, ...]) -> str:
    """As listed, but one number for all layers where they are equal."""
    return str(values[0]) if len(set(values)) == 1 else listed(values)


@dataclasses.dataclass(frozen=True)
class KnownAnswer:
    """A public answer to the paper's task; figures as its authors give them.

    Attributes:
      name: who, and the year.
      accuracy: on CIFAR-10's test images, 0-1, as a rule the best epoch's.
      params: number of parameters; of '4.9M' the round number; None: only '< 5M' is known.
      params_words: the parameters as published.
      multiply_adds: of one image, counted here; None: the design is not public in full.
      design: without what Figure 4(a) does not have; None: not public in full.
      recipe: how it was trained, in short.
    """

    name: str
    accuracy: float
    params: int | None
    params_words: str
    multiply_adds: int | None
    design: Design | None
    recipe: str


# arXiv 2306.12100.
_EFFICIENT = Design((4, 4, 3), (64, 128, 256), (3, 3, 3), (1, 1, 1), None)
# Squeeze-and-excitation after the stem (Hu et al. 2018, section 3): 64 channels to 4 and back, two
# linear layers with bias.
_EXCITATION = Cost(params=64 * 4 + 4 + 4 * 64 + 64, multiply_adds=2 * 64 * 4)
_EFFICIENT_COST = count(_EFFICIENT, CIFAR_CLASSES, CIFAR_SHAPE) + _EXCITATION
_PAPER_COST = count(PAPER_DESIGN, CIFAR_CLASSES, CIFAR_SHAPE)

KNOWN: tuple[KnownAnswer, ...] = (
    KnownAnswer(
        "the paper",
        0.9084,
        _PAPER_COST.params,
        "4,903,242",
        _PAPER_COST.multiply_adds,
        PAPER_DESIGN,
        "Adam 1e-3 constant, 50 epochs; last epoch",
    ),
    KnownAnswer("Wide-ResNet team, 2022", 0.9423, None, "< 5M", None, None, "not known"),
    KnownAnswer(
        "a 2.8M team, 2025",
        0.9474,
        2_797_610,
        "2,797,610",
        None,
        None,
        "Adam with schedule, 300 epochs",
    ),
    KnownAnswer(
        "Coconut, 2025",
        0.9549,
        4_900_000,
        "4.9M",
        None,
        None,
        "SGD 0.05 cosine, weight decay 5e-4, label smoothing 0.01, 200 epochs",
    ),
    KnownAnswer(
        "Efficient ResNets, 2023",
        0.9604,
        _EFFICIENT_COST.params,
        "4,697,742",
        _EFFICIENT_COST.multiply_adds,
        _EFFICIENT,
        "SGD 0.1 cosine, weight decay 5e-4, gradient clip 0.1, Lookahead, 200 epochs",
    ),
)
