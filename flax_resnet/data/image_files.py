"""Reads one image file, whatever its bytes, and resizes one image."""

import contextlib
import io
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageCms, ImageOps

from flax_resnet.process.errors import UserError, printable, reason

# Pillow knows forty more. Among them is PostScript, a language of programs, which it hands to
# Ghostscript to be run; none of the others is what datasets and cameras come in.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")

# 8192 x 8192: above all but a few cameras'. Measured: decoded in 5 s and 1.8 GB at most.
MAX_PIXELS = 2**26

# An uncompressed RGB image of MAX_PIXELS takes 201 MB.
MAX_BYTES = 2**28

# A progressive JPEG has about ten passes over all pixels. A thousand, of 100 bytes each, keep a
# decoder busy for a minute; libtiff stops at this number, too.
MAX_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"  # in no pixel's data: there a zero follows each 0xff

ORIENTATION = 0x0112  # in EXIF: how a viewer turns the image; above 4: on its side


def read_image(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Reads an image file as 8-bit RGB, the way a viewer shows it.

    The EXIF orientation is applied, transparent parts are drawn on white, 16-bit gray is scaled to
    0-255, and of an animation the first frame is used.

    Args:
        path: a file in one of FORMATS, whatever its extension, in any mode.

    Returns:
        uint8 RGB pixels, 0-255, shape [height, width, 3].

    Raises:
        UserError: the file is missing, corrupt, unreasonably large or not an image; it is named.
    """
    return decode_image(read_bytes(path), str(path))


def read_bytes(path: str | Path) -> bytes:
    """The content of an image file, not decoded.

    Raises:
        UserError: the file is missing, unreasonably large or not a regular file.
    """
    path = Path(path)
    fault = _file_fault(path)
    if fault is None:
        try:
            return path.read_bytes()
        except OSError as error:
            fault = f"cannot be read ({reason(error)}); check the path"
    raise UserError(f"{printable(str(path))}: {fault}", code="unreadable", field=str(path))


def decode_image(data: bytes, where: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes the content of an image file; see `read_image`.

    Args:
        data: the content.
        where: the file, for the error.
    """
    with named_errors(where):
        return np.asarray(decode_reduced(data)[0])


@contextlib.contextmanager
def named_errors(where: str) -> Iterator[None]:
    """Says which image an error of `decode_reduced` is about, and what to do."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{printable(where)}: {error}; replace or remove it", code="unreadable", field=where
        ) from error


def _orientation(image: Image.Image) -> int:
    """That of EXIF, 1 where there is none or none that can be read, as other programs take it."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except SyntaxError:  # Pillow's, for a header that is not one
        return 1


def decode_reduced(
    data: bytes,
    reduce: Callable[[int, int], int] = lambda height, width: 1,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes a JPEG at a fraction of its size, which is faster; others whole.

    Args:
        data: the content of an image file.
        reduce: 1, 2, 4 or 8, by which to divide an image of this height and width.
        max_pixels: the most that the whole image may have.

    Returns:
        The image, in RGB, as `read_image` gives it, and the whole image's (height, width).

    Raises:
        UserError: in words that follow the image's name, "is corrupt, ..."; its field is "pixels"
            where there are more than `max_pixels`, else "image".
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit, 90 million pixels, only warns; MAX_PIXELS is below it. Its other
            # warnings are about damage that leaves the pixels intact.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_pixels(image.size, max_pixels)
                whole = None
                if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with others behind it
                    check_scans(data)
                    turned = _orientation(image) > 4
                    width, height = image.size
                    if turned:
                        width, height = height, width
                    whole = height, width
                    divisor = reduce(height, width)
                    image.draft(None, (image.width // divisor, image.height // divisor))
                image.load()
                if _orientation(image) != 1:
                    ImageOps.exif_transpose(image, in_place=True)
                rgb = _to_rgb(image)
                return rgb, whole or (rgb.height, rgb.width)
    except UserError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own check, while it opens the file
        raise UserError(f"cannot be read ({reason(error)})", field="pixels") from error
    except Image.UnidentifiedImageError as error:
        fault = f"is corrupt, or not an image in a known format ({', '.join(FORMATS)})"
        cause = error
    # Pillow's plugins raise nearly anything on corrupt files: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, EOFError, MemoryError; which one depends on format and version.
    except Exception as error:
        fault, cause = f"cannot be read ({reason(error)})", error
    raise UserError(fault, code="unreadable", field="image") from cause


def _file_fault(path: Path) -> str | None:
    """What is wrong with a file before it is opened, and what to do."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "no such file; check the path"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot be read ({reason(error)}); check the path"
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        return f"is {kind}; give the path of an image file"
    if status.st_size == 0:
        return "is empty (0 bytes); replace or remove it"
    if status.st_size > MAX_BYTES:
        return (
            f"has {status.st_size / 1e6:,.0f} MB, more than the limit of {MAX_BYTES / 1e6:,.0f} "
            "MB for an image; shrink or remove it"
        )
    return None


def check_pixels(size: tuple[int, int], limit: int = MAX_PIXELS) -> None:
    """Refuses a decompression bomb by the size in its header, before anything is unpacked."""
    width, height = size
    if width * height > limit:
        raise UserError(
            f"cannot be read ({width:,} x {height:,} pixels, the limit is {limit:,})",
            field="pixels",
        )


def check_scans(data: bytes) -> None:
    """Refuses a JPEG whose many passes over its pixels would take minutes."""
    if (num_scans := data.count(_START_OF_SCAN)) > MAX_JPEG_SCANS:
        raise UserError(
            f"cannot be read ({num_scans:,} scans, the limit is {MAX_JPEG_SCANS})", field="image"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        gray = _scale_to_bytes(np.asarray(image))
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "LAB":  # Pillow's convert() has no way out of LAB
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # only in-place conversion returns None
        return converted
    if image.mode == "La":  # premultiplied gray converts to LA and to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_to_bytes(values: Num[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Maps black..white of a deep gray image to 0..255.

    White is what the file's kind makes likely: 65535 for integers (16-bit PNG, PGM and TIFF, also
    where Pillow opens them as 32-bit), 2^32 - 1 for larger ones; 1, 255 or 65535 for floats,
    the first that holds the largest value.
    """
    lowest, highest = float(values.min()), float(values.max())
    whites = [1.0, 255.0, 65535.0] if values.dtype.kind == "f" else [65535.0, 2.0**32 - 1]
    white = next((white for white in whites if highest <= white), None)
    if white is None or not lowest >= 0:  # a NaN fails both comparisons
        raise ValueError(f"gray values from {lowest:g} to {highest:g} have no known scale")
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def resize_and_crop(
    image: UInt8[np.ndarray, "old_height old_width 3"], height: int, width: int, share: float = 1.0
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Resizes the largest centered part that has the new aspect ratio.

    Bicubic, with antialiasing where the image shrinks. An image of the right size is unchanged.

    Args:
        image: uint8 RGB pixels.
        height: of the result in pixels, at least 1.
        width: likewise.
        share: how much of that part's height and width to keep, in the middle.
    """
    if image.shape[:2] == (height, width) and share == 1:
        return image
    # Resizes that part alone, so a 1 x 100000 image does not grow to gigabytes on the way.
    border = (1 - share) / 2
    fitted = ImageOps.fit(
        Image.fromarray(image), (width, height), Image.Resampling.BICUBIC, bleed=border
    )
    return np.asarray(fitted)
