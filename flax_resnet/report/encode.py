"""Images and files inside a page."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LARGEST = 224  # pixels of a side; a page of many larger ones would take megabytes
_LOSSLESS = 64  # pixels of a side up to which an image is kept as it is


def image_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """An RGB image as the address of an <img>: PNG if it is small, else JPEG, shrunk to LARGEST."""
    file, picture = io.BytesIO(), Image.fromarray(image)
    if max(picture.size) <= _LOSSLESS:
        picture.save(file, "PNG")
        return data_uri(file.getvalue(), "image/png")
    picture.thumbnail((LARGEST, LARGEST))
    picture.save(file, "JPEG", quality=90)
    return data_uri(file.getvalue(), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """A file's content as an address that needs no file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
