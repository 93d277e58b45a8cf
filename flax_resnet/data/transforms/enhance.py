"""Pillow's ImageEnhance for a batch, to the bit: the image blended with a poorer version of itself.

A factor of 0 gives the poorer version, 1 the image, above 1 more than the image. Pillow blends in
float32 and cuts the rest off, so that is done here, too. Arrays have one row for an image, or one
for a row of pixels: numpy is several times slower with a last axis of three channels.
"""

import numpy as np
from jaxtyping import Float, Float32, UInt8

Rgb = UInt8[np.ndarray, "b h w 3"]
Factors = Float[np.ndarray, " b"]

# Of red, green and blue in a gray value (ITU-R 601-2), in units of 2**-16 (Pillow's Convert.c);
# a column for each channel that gets the gray value.
_LUMA = np.array([[19595] * 3, [38470] * 3, [7471] * 3], np.float32)
_BLAS_PIXELS = 16_384


def brightness(images: Rgb, factors: Factors) -> Rgb:
    """Blends with black."""
    x = _flat(images)
    return _blend(np.zeros((1, 1), np.float32), x, factors).reshape(images.shape)


def contrast(images: Rgb, factors: Factors) -> Rgb:
    """Blends with the mean gray value."""
    x = _flat(images)
    means = np.floor(_gray(x).mean(1, dtype=np.float64, keepdims=True) + 0.5).astype(np.float32)
    return _blend(means, x, factors).reshape(images.shape)


def color(images: Rgb, factors: Factors) -> Rgb:
    """Blends with the gray image: saturation."""
    x = _flat(images)
    return _blend(_gray(x), x, factors).reshape(images.shape)


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


def _flat(images: Rgb) -> Float32[np.ndarray, "b values"]:
    return images.reshape(len(images), -1).astype(np.float32)


def _gray(x: Float32[np.ndarray, "b values"]) -> Float32[np.ndarray, "b values"]:
    """Each pixel's gray value in all its channels.

    In integers: no sum reaches 2**24, so float32 holds each exactly.
    """
    gray = np.empty_like(x)
    pixels, grays = x.reshape(-1, 3), gray.reshape(-1, 3)
    # In parts for which OpenBLAS wakes no threads: those of two callers would wait for each other.
    for part in range(0, len(pixels), _BLAS_PIXELS):
        rows = slice(part, part + _BLAS_PIXELS)
        np.matmul(pixels[rows], _LUMA, out=grays[rows])
    gray += 32768
    gray *= np.float32(2**-16)
    return np.floor(gray, out=gray)


def _blend(
    poor: Float32[np.ndarray, "..."], values: Float32[np.ndarray, "..."], factors: Factors
) -> UInt8[np.ndarray, "b ..."]:
    """Gives poor + factor * (values - poor), within 0 to 255."""
    blended = values - poor
    blended *= factors.astype(np.float32).reshape(-1, *[1] * (blended.ndim - 1))
    blended += poor
    np.clip(blended, 0, 255, out=blended)
    return blended.astype(np.uint8)
