"""Random crop of a zero-padded image (paper, section 2.2)."""

import dataclasses

import numpy as np
from jaxtyping import Int64, UInt8


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Pads every side by `padding` zero pixels and crops back to the original size.

    Offsets are uniform over the 2 * padding + 1 rows and columns.
    """

    padding: int
    name: str = "crop"

    def draw(self, rng: np.random.RandomState, num_images: int) -> Int64[np.ndarray, "n 2"]:
        """The first row and column of each crop, in the padded image."""
        return rng.randint(0, 2 * self.padding + 1, size=(num_images, 2), dtype=np.int64)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Int64[np.ndarray, "b 2"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Crops each image at its offset."""
        top, left = draws.T
        padded = pad(images, self.padding)
        return windows(padded, images.shape[1:])[np.arange(len(images)), top, left]


def pad(
    images: UInt8[np.ndarray, "n h w c"], padding: int
) -> UInt8[np.ndarray, "n padded_h padded_w c"]:
    """Adds `padding` zero pixels on every side."""
    num, height, width, channels = images.shape
    padded = np.zeros((num, height + 2 * padding, width + 2 * padding, channels), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = images
    return padded


def windows(
    padded: UInt8[np.ndarray, "n padded_h padded_w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n tops lefts h w c"]:
    """A view of every h x w window, by image, first row and first column."""
    return np.lib.stride_tricks.sliding_window_view(padded, shape, axis=(1, 2, 3))[:, :, :, 0]
