"""Pillow's ImageEnhance for a batch, to the bit: the image blended with a poorer version of itself.

A factor of 0 gives the poorer version, 1 the image, above 1 more than the image. Pillow blends in
float32 and cuts the rest off, so that is done here, too.
"""

import numpy as np
from jaxtyping import Float, Float32, UInt8

from flax_resnet.data.transforms.lookup import look_up

Rgb = UInt8[np.ndarray, "b h w 3"]
Factors = Float[np.ndarray, " b"]

_VALUES = np.arange(256, dtype=np.float32)[None]
# Of red, green and blue in a gray value (ITU-R 601-2), in units of 2**-16 (Pillow's Convert.c).
_LUMA = np.array([19595, 38470, 7471], np.float32)


def brightness(images: Rgb, factors: Factors) -> Rgb:
    """Blends with black."""
    return look_up(images, _blend(np.zeros_like(_VALUES), _VALUES, factors)[:, None])


def contrast(images: Rgb, factors: Factors) -> Rgb:
    """Blends with the mean gray value."""
    pixels = images.shape[1] * images.shape[2]
    means = np.floor(_gray(images).sum((1, 2), dtype=np.float64) / pixels + 0.5).astype(np.float32)
    return look_up(images, _blend(means[:, None], _VALUES, factors)[:, None])


def color(images: Rgb, factors: Factors) -> Rgb:
    """Blends with the gray image: saturation."""
    return _blend(_gray(images)[..., None], images.astype(np.float32), factors)


def sharpness(images: Rgb, factors: Factors) -> Rgb:
    """Blends with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; pixels at the edge stay."""
    num, height, width, _ = images.shape
    x = images.reshape(num, height, 3 * width).astype(np.float32)
    rows = x[:, :-2] + x[:, 1:-1]
    rows += x[:, 2:]
    inner = x[:, 1:-1, 3:-3]
    smooth = rows[..., :-6] + rows[..., 3:-3]
    smooth += rows[..., 6:]
    smooth += 4 * inner
    # No sum lies within 1/26 of the border between two values, so float32 rounds it right.
    smooth *= np.float32(1 / 13)
    smooth += np.float32(0.5)
    np.floor(smooth, out=smooth)
    out = images.copy()
    out.reshape(num, height, 3 * width)[:, 1:-1, 3:-3] = _blend(smooth, inner, factors)
    return out


def _gray(images: Rgb) -> Float32[np.ndarray, "b h w"]:
    """Gray values, which are integers: no sum reaches 2**24, so float32 holds each exactly."""
    return np.floor((images.astype(np.float32) @ _LUMA + 32768) / 65536)


def _blend(
    poor: Float32[np.ndarray, "..."], values: Float32[np.ndarray, "..."], factors: Factors
) -> UInt8[np.ndarray, "b ..."]:
    """Gives poor + factor * (values - poor), within 0 to 255."""
    blended = values - poor
    blended = blended * factors.astype(np.float32).reshape(-1, *[1] * (blended.ndim - 1))
    blended += poor
    np.clip(blended, 0, 255, out=blended)
    return blended.astype(np.uint8)
