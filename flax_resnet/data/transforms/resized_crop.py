"""Random crop of any size and aspect, resized: Inception's augmentation, as ImageNet is trained."""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8, UInt16

from flax_resnet.data.resize import Box, resize_box
from flax_resnet.data.transforms.transform import stream

# As in torchvision's RandomResizedCrop: aspects from 3/4 to 4/3, and after ten crops that do not
# fit the whole image in the middle.
_LOG_ASPECT = math.log(4 / 3)
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a part of random area, aspect and place, and resizes it to the image's own size.

    Szegedy et al. 2015 ("Going deeper with convolutions", section 6): areas from 8% of the image
    to all of it.

    Attributes:
        min_area: the smallest area, as a share of the image's.
        native: resize by OpenCV (see `resize_box`).
    """

    min_area: float = 0.08
    native: bool = False
    name: str = "resized_crop"

    def draw(self, seed: int, epoch: int, index: np.ndarray) -> UInt16[np.ndarray, "n 22"]:
        """Area and aspect of ten tries, then row and column, in steps of 1/65536.

        Shares, because the size of an image is not known before it is read.
        """
        rng = stream(self.name, seed, epoch)
        return rng.randint(0, 2**16, size=(len(index), 2 * _TRIES + 2), dtype=np.uint16)

    def box(self, height: int, width: int, drawn: UInt16[np.ndarray, " 22"]) -> Box:
        """The part of an image of this size that was drawn, in whole pixels."""
        shares = [(value + 0.5) / 2**16 for value in drawn.tolist()]
        row, column = shares[-2:]
        for area, aspect in zip(shares[:-2:2], shares[1:-2:2], strict=True):
            pixels = height * width * (self.min_area + (1 - self.min_area) * area)
            root = math.exp(_LOG_ASPECT * (aspect - 0.5))  # of width over height
            part_width = round(math.sqrt(pixels) * root)
            part_height = round(math.sqrt(pixels) / root)
            if 0 < part_width <= width and 0 < part_height <= height:
                top = int(row * (height - part_height + 1))
                left = int(column * (width - part_width + 1))
                return Box(top, left, part_height, part_width)
        part_width = min(width, round(height * 4 / 3))
        part_height = min(height, round(width * 4 / 3))
        return Box((height - part_height) // 2, (width - part_width) // 2, part_height, part_width)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: UInt16[np.ndarray, "b 22"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Crops each image as drawn."""
        size = height, width = images.shape[1], images.shape[2]
        cropped = np.empty_like(images)
        for i, image in enumerate(images):
            cropped[i] = resize_box(image, self.box(height, width, draws[i]), size, self.native)
        return cropped
