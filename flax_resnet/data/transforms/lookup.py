"""Operations that map each value of a channel to another, as Pillow's ImageOps does, to the bit."""

import numpy as np
from jaxtyping import Int, UInt8

Rgb = UInt8[np.ndarray, "b h w 3"]
Tables = UInt8[np.ndarray, "b channels 256"]  # one channel: the same for all three

_VALUES = np.arange(256)


def look_up(images: Rgb, tables: Tables) -> Rgb:
    """Replaces each value by that of its image's, and channel's, table."""
    return tables.reshape(-1).take(_entries(images, tables.shape[1]))


def posterize(images: Rgb, bits: Int[np.ndarray, " b"]) -> Rgb:
    """Keeps the highest bits."""
    return images & (0xFF << (8 - bits) & 0xFF).astype(np.uint8)[:, None, None, None]


def solarize(images: Rgb, thresholds: Int[np.ndarray, " b"]) -> Rgb:
    """Inverts the values from the threshold on, which may be 256."""
    inverted = images >= thresholds.astype(np.int16)[:, None, None, None]
    return images ^ np.uint8(255) * inverted.view(np.uint8)


def auto_contrast(images: Rgb) -> Rgb:
    """Stretches each channel to 0 to 255; a channel of one value stays."""
    lowest, highest = _extreme(np.minimum, images), _extreme(np.maximum, images)
    scale = 255.0 / np.maximum(highest - lowest, 1)
    stretched = np.clip((_VALUES * scale + -lowest * scale).astype(int), 0, 255)
    return look_up(images, np.where(highest > lowest, stretched, _VALUES).astype(np.uint8))


def equalize(images: Rgb) -> Rgb:
    """Evens out each channel's histogram; one with too few values stays."""
    num = len(images)
    counts = np.bincount(_entries(images, 3).reshape(-1), minlength=num * 3 * 256)
    counts = counts.reshape(num, 3, 256)
    highest = _extreme(np.maximum, images)
    others = counts.sum(-1, keepdims=True) - np.take_along_axis(counts, highest, -1)
    step = others // 255
    below = np.cumsum(counts, -1) - counts
    tables = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return look_up(images, np.where(step > 0, tables, _VALUES).astype(np.uint8))


def _entries(images: Rgb, channels: int) -> Int[np.ndarray, "b h w 3"]:
    """Where the values' entries are in the tables of all images and channels, one after another."""
    num, height, width, _ = images.shape
    first = 256 * np.arange(num * channels).reshape(num, 1, channels)
    # All channels of a row in one vector: with axes of three, numpy takes three times as long.
    first = np.tile(first, (1, 1, 3 * width // channels))
    return (first + images.reshape(num, height, 3 * width)).reshape(images.shape)


def _extreme(function: np.ufunc, images: Rgb) -> Int[np.ndarray, "b 3 1"]:
    """Each channel's minimum or maximum; rows first, for the same reason."""
    num, height, width, _ = images.shape
    rows = function.reduce(images.reshape(num, height, 3 * width), axis=1)
    return function.reduce(rows.reshape(num, width, 3), axis=1).astype(int)[..., None]
