"""The paper's design space (Figure 4(a)): the residual networks within a parameter budget.

The task that the paper answers, the highest CIFAR-10 accuracy of a ResNet under 5,000,000
parameters, is a search of this space.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Literal

from flax_resnet.models.cost import ImageShape, count, depth, map_shape
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError

CIFAR_CLASSES, CIFAR_SHAPE = 10, (32, 32, 3)
TASK_PARAMS = 5_000_000  # the paper's bound
MOST_DESIGNS = 2_000_000  # counted in about 20 seconds, in 2 GiB of memory

RankBy = Literal["multiply-adds", "depth", "params"]


@dataclasses.dataclass(frozen=True)
class Space:
    """Ranges of Figure 4(a)'s hyperparameters; every combination is a design.

    Attributes:
      num_stages: N.
      blocks: B_i, blocks per stage, independent of each other.
      first_channels: C_1, channels of the first stage and of the stem.
      growths: C_i / C_(i-1), at least 1 and the same for all stages of a design; channels are
        rounded to integers.
      kernel_sizes: F_i, odd.
      shortcut_kernels: K_i, odd.
      mixed_kernels: whether F_i and K_i may differ between the stages of a design.
      pool_sizes: P; None or the size of the feature map: all of it. Larger ones are skipped.
      block: 'basic' or 'bottleneck', for all designs.
      shortcut: 'projection', or 'pad' or 'none', which have no K.
    """

    num_stages: tuple[int, ...] = (3, 4)
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
        """The number of designs, without enumerating them."""
        return sum(
            len(set(self.blocks)) ** n * math.prod(map(len, self._choices(n, image_shape)))
            for n in set(self.num_stages)
        )

    def designs(self, image_shape: ImageShape = CIFAR_SHAPE) -> Iterator[Design]:
        """Yields every design once, for images of (height, width, channels)."""
        for n in sorted(set(self.num_stages)):
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
        """For N = n: the distinct tuples of C_i, F_i and K_i, and the values of P."""
        channels = {
            tuple(round(first * growth**i) for i in range(n))
            for first, growth in itertools.product(self.first_channels, self.growths)
        }
        kernels = self._kernels(self.kernel_sizes, n)
        shortcuts = [(1,) * n]
        if self.shortcut == "projection":
            shortcuts = self._kernels(self.shortcut_kernels, n)
            if self.block == "basic":
                # Stage 1 keeps the shape, so K_1 has no effect; it is set to K_2.
                shortcuts = sorted({(k[1], *k[1:]) for k in shortcuts}) if n > 1 else [(1,)]
        ones = (1,) * n
        whole = map_shape(Design(ones, ones, ones, ones, None), image_shape)
        pools = {None if (p, p) == whole else p for p in self.pool_sizes}
        fitting = [p for p in pools if p is None or p <= min(whole)]
        return sorted(channels), kernels, shortcuts, sorted(fitting, key=lambda p: p or math.inf)

    def _kernels(self, sides: tuple[int, ...], n: int) -> list[tuple[int, ...]]:
        if self.mixed_kernels:
            return list(itertools.product(sorted(set(sides)), repeat=n))
        return [(side,) * n for side in sorted(set(sides))]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A design and its cost.

    Attributes:
      design: the design.
      params: number of trainable parameters.
      multiply_adds: of the forward pass of one image.
      depth: layers with weights between image and logits.
    """

    design: Design
    params: int
    multiply_adds: int
    depth: int


def candidate(
    design: Design, num_classes: int = CIFAR_CLASSES, image_shape: ImageShape = CIFAR_SHAPE
) -> Candidate:
    """A design with its cost."""
    cost = count(design, num_classes, image_shape)
    return Candidate(design, cost.params, cost.multiply_adds, depth(design))


def explore(
    space: Space,
    max_params: int,
    num_classes: int = CIFAR_CLASSES,
    image_shape: ImageShape = CIFAR_SHAPE,
    rank_by: RankBy = "multiply-adds",
) -> list[Candidate]:
    """The designs of a space with at most `max_params` parameters, highest rank first.

    Args:
      space: the ranges.
      max_params: the budget, in trainable parameters.
      num_classes: number of logits.
      image_shape: (height, width, channels).
      rank_by: 'multiply-adds' (the computation that the budget buys; ties by depth), 'depth'
        (ties by multiply-adds) or 'params'.

    Raises:
      UserError: the space has more than MOST_DESIGNS designs.
    """
    size = space.size(image_shape)
    if size > MOST_DESIGNS:
        raise UserError(
            f"the ranges hold {size:,} designs, over the limit of {MOST_DESIGNS:,}: narrow them"
        )
    found = (candidate(design, num_classes, image_shape) for design in space.designs(image_shape))
    return sorted((c for c in found if c.params <= max_params), key=_rank_keys[rank_by])


# The last parts of a key only break ties, the same way everywhere.
_rank_keys = {
    "multiply-adds": lambda c: (-c.multiply_adds, -c.depth, c.params, c.design.stage_sizes),
    "depth": lambda c: (-c.depth, -c.multiply_adds, c.params, c.design.stage_sizes),
    "params": lambda c: (-c.params, -c.multiply_adds, -c.depth, c.design.stage_sizes),
}

# The paper's design as Space writes it: its P = 4 is the whole map of a 32x32 image.
PAPER_DESIGN = dataclasses.replace(MODELS["revised"], pool_size=None)


def describe(design: Design) -> str:
    """A design in the paper's letters: 'B 1,1,1,1; C 64,128,256,512; F 3; K 1; P whole map'."""
    parts = {"B": listed(design.stage_sizes), "C": listed(design.stage_channels)}
    parts["F"] = per_stage(design.kernel_sizes)
    if design.shortcut == "projection":
        parts["K"] = per_stage(design.shortcut_kernels)
    parts["P"] = str(design.pool_size or "whole map")
    return "; ".join(f"{letter} {values}" for letter, values in parts.items())


def listed(values: tuple[int, ...]) -> str:
    """(4, 4, 3) as '4,4,3'."""
    return ",".join(map(str, values))


def per_stage(values: tuple[int, ...]) -> str:
    """As `listed`, but a single number if all stages have the same."""
    return str(values[0]) if len(set(values)) == 1 else listed(values)
