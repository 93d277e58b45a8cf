"""Random crop of a padded image (paper, section 2.2)."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from flax_resnet.data.transforms.transform import stream

PadMode = Literal["zeros", "reflect"]


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Pads every side by `padding` pixels and crops back to the original size.

    Offsets are uniform over the 2 * padding + 1 rows and columns. `mode` is what the padding holds:
    zeros, or the image mirrored at its edge pixels.
    """

    padding: int
    mode: PadMode = "zeros"
    name: str = "crop"

    def draw(
        self, seed: int, epoch: int, index: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, "n 2"]:
        """The first row and column of each crop, in the padded image."""
        rng = stream(self.name, seed, epoch)
        return rng.randint(0, 2 * self.padding + 1, size=(len(index), 2), dtype=np.int64)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Int64[np.ndarray, "b 2"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Crops each image at its offset."""
        top, left = draws.T
        padded = pad(images, self.padding, self.mode)
        return windows(padded, images.shape[1:])[np.arange(len(images)), top, left]


def pad(
    images: UInt8[np.ndarray, "n h w c"], padding: int, mode: PadMode = "zeros"
) -> UInt8[np.ndarray, "n padded_h padded_w c"]:
    """Adds `padding` pixels on every side."""
    if mode == "reflect":
        return np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), "reflect")
    num, height, width, channels = images.shape
    padded = np.zeros((num, height + 2 * padding, width + 2 * padding, channels), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = images
    return padded


def windows(
    padded: UInt8[np.ndarray, "n padded_h padded_w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n tops lefts h w c"]:
    """A view of every h x w window, by image, first row and first column."""
    return np.lib.stride_tricks.sliding_window_view(padded, shape, axis=(1, 2, 3))[:, :, :, 0]
