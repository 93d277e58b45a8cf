"""Images that stay on disk, read when a batch needs them: a stand-in for an array of images."""

import concurrent.futures
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from flax_resnet.data.image_files import decode_reduced, named_errors, resize_and_crop
from flax_resnet.data.resize import decode_box, decode_native
from flax_resnet.data.transforms.resized_crop import RandomResizedCrop
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.machine import usable_cores

PART = 4  # images a thread takes at a time: long enough beside the hand-over, short beside a batch


@runtime_checkable  # for beartype, in tests
class Encoded(Protocol):
    """Image files, or records like them, by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, number: int) -> bytes:
        """The content of one; from any thread."""
        ...

    def name(self, number: int) -> str:
        """What an error calls it."""
        ...


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """Images on disk, all decoded to one size: `images[index]` reads them, as of an array.

    Threads decode: the decoders let go of Python's lock. Nothing is kept but the numbers of the
    images, so any batch can be read at any time, and memory does not grow.

    Attributes:
        encoded: all images of the split.
        index: which of them these are.
        size: (height, width) to which they are resized.
        keeps_size: refuse images that have another size, instead of resizing them.
        share: how much of the middle is read, in height and width; see `resize_and_crop`.
        native: see `decode_box`.
    """

    encoded: Encoded
    index: Int64[np.ndarray, " n"]
    size: tuple[int, int]
    keeps_size: bool = False
    share: float = 1.0
    native: bool = False
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(images, height, width, 3), as an array's."""
        return len(self), *self.size, 3

    def __getitem__(self, index: slice | np.ndarray) -> UInt8[np.ndarray, "b h w 3"]:
        """Reads images, resized whole."""
        return self._in_parallel(self._read, (self.index[index].tolist(),))

    def select(self, index: slice | np.ndarray) -> "StreamedImages":
        """Some of the images, without reading them."""
        return dataclasses.replace(self, index=self.index[index])

    def cropped(
        self, index: Int64[np.ndarray, " b"], crop: RandomResizedCrop, draws: np.ndarray
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Reads images, of each the part that was drawn for it."""

        def read(number: int, drawn: np.ndarray) -> np.ndarray:
            find_box = functools.partial(crop.box, drawn=drawn)
            return decode_box(*self._content(number), find_box, self.size, crop.native)

        return self._in_parallel(read, (self.index[index].tolist(), draws))

    def _content(self, number: int) -> tuple[bytes, str]:
        """An image file, and what an error calls it."""
        name = self.encoded.name(number)
        try:
            return self.encoded.read(number), name
        except UserError:
            raise
        # Corrupt records come as errors of protobuf, Riegeli, the system ...
        except Exception as error:
            raise UserError(
                f"{name}: cannot be read ({reason(error)}); restore it",
                code="unreadable",
                field="config.dataset",
            ) from error

    def _read(self, number: int) -> np.ndarray:
        data, name = self._content(number)
        decode = decode_native if self.native else decode_reduced
        with named_errors(name):
            image = np.asarray(decode(data)[0])
        if self.keeps_size and image.shape[:2] != self.size:
            raise UserError(
                f"{name}: is {image.shape[0]}x{image.shape[1]} but the first image is "
                f"{self.size[0]}x{self.size[1]}; set config.image_size",
                code="conflict",
                field="config.image_size",
            )
        return resize_and_crop(image, *self.size, self.share)

    def _in_parallel(self, read: Any, arguments: tuple[Any, ...]) -> UInt8[np.ndarray, "b h w 3"]:
        num = len(arguments[0])
        images = np.empty((num, *self.size, 3), np.uint8)

        def fill(first: int) -> None:
            part = slice(first, first + PART)
            for place, each in enumerate(zip(*(a[part] for a in arguments), strict=True), first):
                images[place] = read(*each)

        if num <= PART:  # by the caller, which may be a thread among several
            fill(0)
        else:
            list(_threads().map(fill, range(0, num, PART)))
        return images


Images = UInt8[np.ndarray, "_ _ _ _"] | StreamedImages  # [N, height, width, 3]


def select(images: Images, index: slice | np.ndarray) -> Images:
    """Some of the images, without reading any from disk."""
    return images.select(index) if isinstance(images, StreamedImages) else images[index]


def middle(images: Images, share: float) -> Images:
    """The images cut to that share of height and width, in the middle, and resized back."""
    if isinstance(images, StreamedImages):
        return dataclasses.replace(images, share=share)
    if share == 1:
        return images
    height, width = images.shape[1:3]
    return np.stack([resize_and_crop(image, height, width, share) for image in images])


def same_images(images: Images, others: Images) -> bool:
    """Whether two sets are equal, read a part at a time."""
    parts = [slice(at, at + 1000) for at in range(0, max(len(images), len(others)), 1000)]
    return all(np.array_equal(images[part], others[part]) for part in parts)


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(usable_cores(), "decode")
