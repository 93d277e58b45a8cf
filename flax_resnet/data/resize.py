"""A part of an image, decoded no larger than needed and resized: by Pillow, or by OpenCV."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flax_resnet.data.image_files import (
    ORIENTATION,
    check_pixels,
    check_scans,
    decode_reduced,
    named_errors,
)
from flax_resnet.process.errors import UserError, reason


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize_box(
    image: UInt8[np.ndarray, "_ _ 3"] | Image.Image,
    box: Box,
    size: tuple[int, int],
    native: bool = False,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Resizes a part of an RGB image.

    Args:
        image: 8-bit RGB pixels.
        box: the part.
        size: (height, width) of the result.
        native: by OpenCV, which interpolates linearly, and where the part shrinks to less than
            half takes the mean of the pixels under each new one; else by Pillow, linearly, with
            antialiasing.
    """
    top, left, height, width = box
    new_height, new_width = size
    if isinstance(image, np.ndarray):
        part = image[top : top + height, left : left + width]
    else:
        part = image.crop((left, top, left + width, top + height))
    if (height, width) == size:
        return np.array(part)
    if native:
        cv2, _ = native_packages()
        skips = height > 2 * new_height or width > 2 * new_width  # pixels, if linear
        how = cv2.INTER_AREA if skips else cv2.INTER_LINEAR
        return cv2.resize(np.asarray(part), (new_width, new_height), interpolation=how)
    small = Image.fromarray(part) if isinstance(part, np.ndarray) else part
    return np.asarray(small.resize((new_width, new_height), Image.Resampling.BILINEAR))


def decode_box(
    data: bytes,
    where: str,
    find_box: Callable[[int, int], Box],
    size: tuple[int, int],
    native: bool = False,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Decodes a part of an image file and resizes it.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the part still is as large as the result
    then. That is not exact: pixels differ from those of the whole image resized.

    Args:
        data: the file.
        where: its name, for an error.
        find_box: the part, from the height and width of the whole image.
        size: (height, width) of the result.
        native: decode by simplejpeg and resize by OpenCV. simplejpeg and Pillow both have
            libjpeg-turbo, which gives the same pixels.

    Raises:
        UserError: the file is corrupt or not an image.
    """

    def reduce(height: int, width: int) -> int:
        """The most by which the part still is as large as the result."""
        _, _, part_height, part_width = find_box(height, width)
        most = min(part_height / size[0], part_width / size[1])
        return max(k for k in (1, 2, 4, 8) if k <= max(most, 1))

    with named_errors(where):
        image, (height, width) = (decode_native if native else decode_reduced)(data, reduce)
    box = find_box(height, width)
    shape = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    if shape != (height, width):
        divisor = reduce(height, width)
        box = Box(*(edge // divisor for edge in box))  # the reduced sides are rounded up
    return resize_box(image, box, size, native)


@functools.cache
def native_packages() -> tuple[Any, Any]:
    """OpenCV and simplejpeg.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        import cv2
        import simplejpeg
    except ImportError as error:
        raise UserError(
            f"config.image_decoder=native needs simplejpeg and OpenCV ({reason(error)}): "
            'pip install ".[stream]", or leave the field out',
            code="unavailable",
            field="config.image_decoder",
        ) from error
    cv2.setNumThreads(0)  # a thread an image, as elsewhere
    return cv2, simplejpeg


def decode_native(
    data: bytes, reduce: Callable[[int, int], int] = lambda height, width: 1
) -> tuple[UInt8[np.ndarray, "_ _ 3"] | Image.Image, tuple[int, int]]:
    """`decode_reduced` by simplejpeg; by Pillow whatever is not an ordinary JPEG, or is damaged."""
    _, simplejpeg = native_packages()
    try:
        if data.startswith(b"\xff\xd8\xff") and (_is_plain(data) or not _is_turned(data)):
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            check_pixels((width, height))
            if colors in ("YCbCr", "Gray"):
                k = reduce(height, width)
                sides = {"min_height": -(-height // k), "min_width": -(-width // k)}
                return simplejpeg.decode_jpeg(data, min_factor=k, **sides), (height, width)
    except ValueError:  # Pillow says what is wrong, or reads it
        pass
    return decode_reduced(data, reduce)


def _is_plain(data: bytes) -> bool:
    """Whether a JPEG has neither EXIF nor many scans, from its head: searching all takes longer."""
    head = data[:4096]
    head = head[: head.find(b"\xff\xda")]
    is_baseline = b"\xff\xc0" in head and b"\xff\xc2" not in head
    return is_baseline and b"Exif" not in head


def _is_turned(data: bytes) -> bool:
    """Whether a JPEG's EXIF asks for it to be turned; refuses one with too many scans."""
    check_scans(data)
    if data.find(b"Exif\0\0", 0, 1 << 16) < 0:
        return False
    exif = Image.Exif()
    try:
        exif.load(data[data.find(b"Exif\0\0") :])
    except SyntaxError:  # as in image_files.py
        return False
    return exif.get(ORIENTATION, 1) != 1
