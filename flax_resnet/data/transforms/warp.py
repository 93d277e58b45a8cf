"""Affine maps of a batch, as Pillow makes them, to the bit: nearest pixel, black outside."""

import math

import numpy as np
from jaxtyping import Int, UInt8

Rgb = UInt8[np.ndarray, "b h w 3"]
# (a, b, c, d, e, f): what is at (x, y) comes from (ax + by + c, dx + ey + f)
Matrix = tuple[float, ...]
Sources = Int[np.ndarray, "maps pixels"]
Shape = tuple[int, int]  # (height, width)


def shear_x(amount: float) -> Matrix:
    """Moves row y by `amount` * y pixels to the left."""
    return 1.0, amount, 0.0, 0.0, 1.0, 0.0


def shear_y(amount: float) -> Matrix:
    """Moves column x by `amount` * x pixels upward."""
    return 1.0, 0.0, 0.0, amount, 1.0, 0.0


def translate_x(pixels: int) -> Matrix:
    """Moves the image to the left."""
    return 1.0, 0.0, float(pixels), 0.0, 1.0, 0.0


def translate_y(pixels: int) -> Matrix:
    """Moves the image upward."""
    return 1.0, 0.0, 0.0, 0.0, 1.0, float(pixels)


def rotate(degrees: int, shape: Shape) -> Matrix:
    """Turns the image around its center, counterclockwise."""
    height, width = shape
    angle = -math.radians(degrees)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y


def sources(matrices: np.ndarray, shape: Shape) -> Sources:
    """The pixel y * width + x that each pixel comes from; height * width where it lies outside."""
    height, width = shape
    a, b, c, d, e, f = matrices.T
    # Pillow's fixed-point numbers, at the centers of the pixels.
    a, b, c, d, e, f = (
        np.floor(v * 65536 + 0.5).astype(np.int64)[:, None, None]
        for v in (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    )
    y, x = np.arange(height)[:, None], np.arange(width)
    from_x, from_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return np.where(inside, from_y * width + from_x, height * width).reshape(len(matrices), -1)


def warp(images: Rgb, source: Sources) -> Rgb:
    """Moves pixels as `sources` says."""
    num, height, width, _ = images.shape
    pixels = height * width
    padded = np.zeros((num, pixels + 1, 4), np.uint8)  # four bytes are moved as one number
    padded[:, :pixels, :3] = images.reshape(num, pixels, 3)
    first = np.arange(num)[:, None] * (pixels + 1)
    moved = padded.reshape(-1).view(np.uint32).take(source + first)
    return moved.view(np.uint8).reshape(num, height, width, 4)[..., :3]
