"""Cutout (DeVries and Taylor 2017, arXiv 1708.04552)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from flax_resnet.data.transforms.transform import stream


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Covers a square of `side` pixels; its center is any pixel, so parts may lie outside.

    Attributes:
      side: of the square.
      fill: the color of the square, which is 0 after normalization where it is the mean color.
    """

    side: int
    fill: tuple[int, int, int]
    name: str = "cutout"

    def draw(
        self, seed: int, epoch: int, index: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, "n 2"]:
        """A center as two numbers below 2**31, of which `apply` takes the rest of the division."""
        return stream(self.name, seed, epoch).randint(0, 2**31 - 1, (len(index), 2), dtype=np.int64)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Int64[np.ndarray, "b 2"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Covers each image's square."""
        rows, columns = (self._covered(draws[:, axis], images.shape[1 + axis]) for axis in (0, 1))
        channels = len(self.fill)
        covered = rows[:, :, None] & columns.repeat(channels, 1)[:, None, :]
        # All channels of a row in one vector: numpy is six times slower with an axis of three.
        out = images.copy()
        fill = np.tile(np.array(self.fill, np.uint8), images.shape[2])
        np.copyto(out.reshape(covered.shape), fill, where=covered)
        return out

    def _covered(self, draws: Int64[np.ndarray, " b"], size: int) -> Bool[np.ndarray, "b size"]:
        """Which rows or columns the square takes."""
        first = (draws % size - self.side // 2)[:, None]
        pixels = np.arange(size)
        return (pixels >= first) & (pixels < first + self.side)
