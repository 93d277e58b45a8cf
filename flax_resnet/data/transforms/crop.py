"""Random crop of a zero-padded image (paper, section 2.2)."""

import dataclasses

import numpy as np
from jaxtyping import Integer, UInt8


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Pads by `padding` zero pixels a side and crops back to the old size.

    Offsets are uniform over the 2 * padding + 1 rows and columns.
    """

    padding: int
    name: str = "crop"

    def draw(self, rng: np.random.RandomState, num_images: int) -> Integer[np.ndarray, "n 2"]:
        """The first row and column of each crop, in the padded image."""
        return rng.randint(0, 2 * self.padding + 1, size=(num_images, 2))

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Integer[np.ndarray, "b 2"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Crops each image at its offset."""
        num, height, width, channels = images.shape
        p = self.padding
        padded = np.zeros((num, height + 2 * p, width + 2 * p, channels), np.uint8)
        padded[:, p : p + height, p : p + width] = images
        cropped = np.empty_like(images)
        for i, (top, left) in enumerate(draws.tolist()):
            cropped[i] = padded[i, top : top + height, left : left + width]
        return cropped
