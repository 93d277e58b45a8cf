"""What every source of images needs: three channels, one size, enough memory."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped, UInt8

from flax_resnet.data.image_files import resize_and_crop
from flax_resnet.process.errors import UserError
from flax_resnet.process.memory import available_memory


def three_channels(
    images: Shaped[np.ndarray, "..."], where: str
) -> UInt8[np.ndarray, "num height width 3"]:
    """Converts gray or RGB images to RGB; gray becomes three equal channels.

    Args:
        images: must be uint8 pixels, [num, height, width], [num, height, width, 1] or
            [num, height, width, 3].
        where: file and field, for the error.

    Returns:
        uint8 pixels, shape [num, height, width, 3].

    Raises:
        UserError: another shape or dtype.
    """
    if images.dtype != np.uint8:
        raise UserError(
            f"{where} is {images.dtype}; store the pixels as uint8, 0 to 255", field=where
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{where} has shape {list(images.shape)}; make it [N, height, width, 3] (color) or "
            "[N, height, width] (gray), channels last",
            field=where,
        )
    if 0 in images.shape[1:]:
        raise UserError(
            f"{where} has shape {list(images.shape)}; its images have no pixels", field=where
        )
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def resize_images(
    images: Iterable[UInt8[np.ndarray, "_ _ 3"]], num: int, image_size: int
) -> UInt8[np.ndarray, "{num} {image_size} {image_size} 3"]:
    """Resizes `num` images, each of any size, into one array; see `resize_and_crop`."""
    resized = np.empty((num, image_size, image_size, 3), np.uint8)
    for index, image in enumerate(images):
        resized[index] = resize_and_crop(image, image_size, image_size)
    return resized


def check_memory(what: str, num_images: int, image_shape: tuple[int, int]) -> None:
    """Refuses a dataset whose pixels would not fit in memory, before any is read.

    Args:
        what: the dataset, for the error.
        num_images: training and test images together.
        image_shape: height and width in pixels, after resizing.

    Raises:
        UserError: the images would take more than half of the available memory.
    """
    images = f"{what}: {num_images:,} images of {image_shape[0]}x{image_shape[1]}"
    check_bytes(images, num_images * image_shape[0] * image_shape[1] * 3)


def check_bytes(what: str, needed: int) -> None:
    """Refuses what takes `needed` bytes of memory, before it is read; see `check_memory`.

    Raises:
        UserError: naming `what`.
    """
    limit = available_memory() // 2  # the other half is for the program and its batches
    if needed > limit:
        raise UserError(
            f"{what} take {needed / 1e9:,.1f} GB of memory, more than half of what is available "
            f"({limit / 1e9:,.1f} GB); leave a folder or a tfds set on disk "
            "(config.data_loading=stream), set a smaller config.image_size or use a smaller "
            "dataset",
            code="out_of_memory",
            field="config.dataset",
        )
