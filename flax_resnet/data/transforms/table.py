"""Gathers transformed batches from a fixed array of images, or from images on disk."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from flax_resnet.data.streaming import Images, StreamedImages
from flax_resnet.data.transforms.crop import RandomCrop, pad, windows
from flax_resnet.data.transforms.flip import RandomFlip
from flax_resnet.data.transforms.resized_crop import RandomResizedCrop
from flax_resnet.data.transforms.transform import Transform

MAX_BYTES = 2 << 30


class ImageTable:
    """The training images, and the transforms to apply to a batch of them in turn.

    A flip followed by a crop, as nearly every run uses them, takes one gather instead of three
    passes over the batch (2.5 times as fast): from a table of the padded images and their mirror
    images, made once if it fits in `max_bytes`. The result is the same bit for bit.

    Attributes:
        images: as given.
        num_bytes: size of the table; 0 without one.
    """

    def __init__(
        self,
        images: Images,
        transforms: Sequence[Transform],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.images = images
        self._transforms = tuple(transforms)
        self._windows = None
        self.num_bytes = 0
        match self._transforms:
            case (RandomFlip(), RandomCrop(padding, mode), *_) if isinstance(images, np.ndarray):
                num, height, width, channels = images.shape
                size = 2 * num * (height + 2 * padding) * (width + 2 * padding) * channels
                if size <= max_bytes:
                    self.num_bytes = size
                    table = pad(np.concatenate([images, images[:, :, ::-1]]), padding, mode)
                    self._windows = windows(table, images.shape[1:])

    def batch(
        self, index: Int64[np.ndarray, " b"], draws: Sequence[Shaped[np.ndarray, "b ..."]]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """The images at `index`, transformed by what each transform drew for them."""
        first = next(iter(self._transforms), None)
        if self._windows is not None:
            flip, (top, left) = draws[0], draws[1].T
            batch, done = self._windows[index + flip * len(self.images), top, left], 2
        elif isinstance(self.images, StreamedImages) and isinstance(first, RandomResizedCrop):
            batch, done = self.images.cropped(index, first, draws[0]), 1
        else:
            batch, done = self.images[index], 0
        for transform, drawn in zip(self._transforms[done:], draws[done:], strict=True):
            batch = transform.apply(batch, drawn)
        return batch
