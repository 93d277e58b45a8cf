"""Random crop and flip in numpy, for a whole batch at once, on uint8.

The paper's recipe (section 2.2, data pre-treatment): pad with zeros, crop back to the old size at
a random offset, flip left to right with probability 0.5. Every draw is a pure function of (seed,
epoch, position in the epoch), so any step of any epoch can be made again.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int64, UInt8


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """What happens to the image at each position of an epoch.

    Attributes:
      index: which training image stands there; a permutation.
      top: first row of its crop, in the padded image.
      left: first column of its crop.
      flip: whether the image is mirrored left to right (before the crop).
    """

    index: Int64[np.ndarray, " n"]
    top: Int64[np.ndarray, " n"]
    left: Int64[np.ndarray, " n"]
    flip: Bool[np.ndarray, " n"]


def plan_epoch(num_images: int, *, seed: int, epoch: int, padding: int, flip: bool) -> EpochPlan:
    """Draws the order and the augmentation of one epoch.

    Args:
      num_images: size of the training set.
      seed: the run's seed.
      epoch: from 0 on.
      padding: pixels a side; offsets are uniform over the 2 * padding + 1 rows and columns.
      flip: whether half of the images are mirrored.
    """
    rng = np.random.default_rng((seed, epoch))
    index = rng.permutation(num_images)
    top, left = rng.integers(0, 2 * padding + 1, size=(2, num_images))
    mirrored = rng.random(num_images) < 0.5
    return EpochPlan(index, top, left, mirrored if flip else np.zeros_like(mirrored))


class Augmenter:
    """Makes augmented batches of a fixed image array.

    A crop is a gather from a strided view of the padded images, of which there are two copies,
    as they are and mirrored: no image is touched one by one in Python. The copies are made once
    where they fit in `max_table_bytes`, otherwise for each batch (about 5 times slower).
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "n height width channels"],
        *,
        padding: int,
        flip: bool,
        max_table_bytes: int = 2 << 30,
    ) -> None:
        self._images = images
        self._padding = padding
        self._flip = flip
        _, height, width, channels = images.shape
        padded_pixels = (height + 2 * padding) * (width + 2 * padding)
        table_bytes = len(images) * padded_pixels * channels * (2 if flip else 1)
        fits = table_bytes <= max_table_bytes
        self._table = pad_and_mirror(images, padding, flip) if fits and self._changes else None

    @property
    def _changes(self) -> bool:
        return self._flip or self._padding > 0

    def __call__(
        self, plan: EpochPlan, start: int, stop: int
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        """The augmented images at positions start to stop - 1 of the epoch."""
        index = plan.index[start:stop]
        if not self._changes:
            return self._images[index]
        flip, top, left = plan.flip[start:stop], plan.top[start:stop], plan.left[start:stop]
        height, width = self._images.shape[1:3]
        if self._table is not None:
            return crop(self._table, index + flip * len(self._images), top, left, height, width)
        table = pad_and_mirror(self._images[index], self._padding, self._flip)
        rows = np.arange(len(index)) + flip * len(index)
        return crop(table, rows, top, left, height, width)


def pad_and_mirror(
    images: UInt8[np.ndarray, "n height width channels"], padding: int, mirror: bool
) -> UInt8[np.ndarray, "copies padded_height padded_width channels"]:
    """Zero-padded images, followed (with `mirror`) by their mirror images: n or 2n of them."""
    num, height, width, channels = images.shape
    shape = (height + 2 * padding, width + 2 * padding, channels)
    table = np.zeros(((2 if mirror else 1) * num, *shape), np.uint8)
    inner = table[:, padding : padding + height, padding : padding + width]
    inner[:num] = images
    if mirror:
        inner[num:] = images[:, :, ::-1]
    return table


def crop(
    table: UInt8[np.ndarray, "n padded_height padded_width channels"],
    rows: Int64[np.ndarray, " batch"],
    top: Int64[np.ndarray, " batch"],
    left: Int64[np.ndarray, " batch"],
    height: int,
    width: int,
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Cuts a height x width window at (top, left) out of each table row named by `rows`."""
    window = (height, width, table.shape[3])
    windows = np.lib.stride_tricks.sliding_window_view(table, window, axis=(1, 2, 3))
    return windows[rows, top, left, 0]
