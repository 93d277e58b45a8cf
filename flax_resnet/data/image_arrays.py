"""What every source of images needs: three channels, one size, and room in memory."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from flax_resnet.data.image_files import resize_and_crop
from flax_resnet.process.errors import UserError


def three_channels(
    images: Shaped[np.ndarray, "..."], where: str
) -> UInt8[np.ndarray, "num height width 3"]:
    """Makes RGB of a batch of grey or RGB images; grey becomes three equal channels.

    Args:
        images: to be uint8 pixels, [num, height, width], [num, height, width, 1] or
            [num, height, width, 3].
        where: file and field, for the error.

    Returns:
        uint8 pixels, shape [num, height, width, 3].

    Raises:
        UserError: another shape or dtype.
    """
    if images.dtype != np.uint8:
        raise UserError(f"{where} is {images.dtype}; store the pixels as uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{where} has shape {list(images.shape)}; make it [N, height, width, 3] (colour) or "
            "[N, height, width] (grey), channels last"
        )
    if 0 in images.shape[1:]:
        raise UserError(f"{where} has shape {list(images.shape)}; its images have no pixels")
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def resize_images(
    images: Iterable[UInt8[np.ndarray, "_ _ 3"]], num: int, image_size: int
) -> UInt8[np.ndarray, "{num} {image_size} {image_size} 3"]:
    """Resizes `num` images, each of any size, into one array; see `resize_and_crop`."""
    resized = np.empty((num, image_size, image_size, 3), np.uint8)
    for index, image in enumerate(images):
        resized[index] = resize_and_crop(image, image_size)
    return resized


def available_memory() -> int:
    """Bytes of memory that this process can still take without swapping, as the system says."""
    limits = []
    try:
        # What Linux can free for us; the free pages alone would leave out the file cache.
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    if not limits:  # macOS has no /proc; sysconf knows its total memory
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:  # a container's own limit (cgroup v2)
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # ValueError: "max", no limit
        pass
    return min(limits)


def check_memory(
    what: str, num_images: int, image_shape: tuple[int, int], memory_limit: int | None
) -> None:
    """Refuses a dataset whose pixels would not fit, before any is read.

    Args:
        what: the dataset, for the error.
        num_images: training and test images together.
        image_shape: height and width in pixels as they are kept.
        memory_limit: largest size in bytes; None for half of the memory now available (the other
            half is left to the program and its batches).

    Raises:
        UserError: the images take more.
    """
    images = f"{what}: {num_images:,} images of {image_shape[0]}x{image_shape[1]}"
    check_bytes(images, num_images * image_shape[0] * image_shape[1] * 3, memory_limit)


def check_bytes(what: str, needed: int, memory_limit: int | None) -> None:
    """Refuses what takes `needed` bytes of memory, before it is read; see `check_memory`.

    Raises:
        UserError: naming `what`.
    """
    limit = available_memory() // 2 if memory_limit is None else memory_limit
    if needed > limit:
        raise UserError(
            f"{what} take {needed / 1e9:,.1f} GB, above the {limit / 1e9:,.1f} GB (half of the "
            "memory now available) that a dataset may use, and streaming from disk is not there "
            "yet; set a smaller config.image_size or take a smaller dataset"
        )
