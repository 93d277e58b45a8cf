"""Reads one image file, whatever its bytes, and resizes one image."""

import stat
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageCms, ImageOps

from flax_resnet.process.errors import UserError, reason

# Pillow knows forty more. Among them is PostScript, a language of programs, which it hands to
# Ghostscript to be run; none of the others is what datasets and cameras come in.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")

# 8192 x 8192: above all but a few cameras'. Measured: decoded in 5 s and 1.8 GB at most.
MAX_PIXELS = 2**26

# A progressive JPEG has about ten passes over all pixels. A thousand, of 100 bytes each, keep a
# decoder busy for a minute; libtiff stops at this number, too.
MAX_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"  # in no pixel's data: there a zero follows each 0xff


def read_image(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Reads an image file as 8-bit RGB, the way a viewer shows it.

    The orientation of the EXIF header is applied; transparent parts are laid on white; 16-bit
    grey is scaled to 0-255; of an animation the first frame is taken.

    Args:
        path: a file in one of FORMATS, whatever its name ends in, in any mode.

    Returns:
        uint8 RGB pixels, 0-255, shape [height, width, 3].

    Raises:
        UserError: the file is missing, damaged, too large to be sane or no image; it is named.
    """
    path = Path(path)
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow's own limit, 90 million pixels, only warns; MAX_PIXELS is below it. Its other
            # warnings are about damage that leaves the pixels whole.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check_pixels(image.size)
                if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with others behind it
                    _check_scans(path.read_bytes().count(_START_OF_SCAN))
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(_to_rgb(image))
    except Image.UnidentifiedImageError:
        raise UserError(
            f"{path}: is not an image in a known format ({', '.join(FORMATS)}), or is damaged; "
            "replace or remove it"
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too many pixels ({reason(error)}); shrink it first") from error
    # Pillow's plugins raise nearly anything on damaged files: OSError, SyntaxError, ValueError,
    # struct.error, IndexError, EOFError, MemoryError; which one depends on format and version.
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}); replace or remove it"
        ) from error


def _check_is_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path}: is a folder; give the path of one image file")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise UserError(f"{path}: is no regular file; give the path of an image file")
    if status.st_size == 0:
        raise UserError(f"{path}: is an empty file (zero bytes); replace or remove it")


def _check_pixels(size: tuple[int, int]) -> None:
    """Refuses a decompression bomb by the size in its header, before anything is unpacked."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"{width:,} x {height:,}, and {MAX_PIXELS:,} are the most"
        )


def _check_scans(num_scans: int) -> None:
    if num_scans > MAX_JPEG_SCANS:
        raise ValueError(f"{num_scans:,} scans, and {MAX_JPEG_SCANS} are the most")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _scale_to_bytes(np.asarray(image))
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":  # Pillow's convert() has no way out of LAB
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # only in-place conversion returns None
        return converted
    if image.mode == "La":  # premultiplied grey converts to LA and to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_to_bytes(values: Num[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Maps black..white of a deep grey image to 0..255.

    White is what the file's kind makes likely: 65535 for integers (16-bit PNG, PGM and TIFF, also
    where Pillow opens them as 32-bit), 2^32 - 1 for larger ones; 1, 255 or 65535 for floats,
    the first that holds the largest value.
    """
    lowest, highest = float(values.min()), float(values.max())
    whites = [1.0, 255.0, 65535.0] if values.dtype.kind == "f" else [65535.0, 2.0**32 - 1]
    white = next((white for white in whites if highest <= white), None)
    if white is None or not lowest >= 0:  # a NaN fails both comparisons
        raise ValueError(f"grey values from {lowest:g} to {highest:g} have no known scale")
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def resize_and_crop(
    image: UInt8[np.ndarray, "height width 3"], height: int, width: int | None = None
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resizes the largest part in the middle that has the new shape's proportions.

    Bicubic, with antialiasing where the image shrinks. An image of the right size is unchanged.

    Args:
        image: uint8 RGB pixels, shape [height, width, 3].
        height: of the result in pixels, at least 1.
        width: of the result; None: `height`.

    Returns:
        uint8 RGB pixels, shape [height, width, 3].
    """
    size = (height if width is None else width, height)
    if image.shape[1::-1] == size:
        return image
    # Resizes the part alone, so a 1 x 100000 image cannot grow to gigabytes on the way.
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.BICUBIC))
