"""Common shifts of images at five severities, as in CIFAR-10-C.

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", arXiv 1903.12261. The severities are those that their make_cifar_c.py has for
32x32 images; `shift` is not among theirs.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

Images = UInt8[np.ndarray, "n h w 3"]

SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 32  # of the images that the severities are meant for; lengths scale with the shorter side


def _pixels(values: np.ndarray) -> Images:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _noise(images: Images, deviation: float) -> Images:
    rng = np.random.RandomState(0)  # the same in every call
    return _pixels(images + rng.normal(0, 255 * deviation, images.shape).astype(np.float32))


def _blur(images: Images, deviation: float) -> Images:
    sigma = deviation * min(images.shape[1:3]) / _SIDE
    return _pixels(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest"))


def _brightness(images: Images, more: float) -> Images:
    # The V of HSV is the largest channel; hue and saturation stay if all grow by one factor.
    value = images.max(-1, keepdims=True).astype(np.float32)
    raised = np.minimum(value + 255 * more, 255)
    return _pixels(np.where(value > 0, images * (raised / np.maximum(value, 1)), raised))


def _contrast(images: Images, share: float) -> Images:
    means = images.mean((1, 2), keepdims=True, dtype=np.float32)
    return _pixels((images - means) * np.float32(share) + means)


def _jpeg(images: Images, quality: float) -> Images:
    def compress(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        return np.asarray(Image.open(file))

    return np.stack([compress(image) for image in images])


def _pixelate(images: Images, share: float) -> Images:
    size = images.shape[2], images.shape[1]
    small = max(1, int(size[0] * share)), max(1, int(size[1] * share))

    def resize(image: np.ndarray) -> np.ndarray:
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        return np.asarray(shrunk.resize(size, Image.Resampling.BOX))

    return np.stack([resize(image) for image in images])


def _shift(images: Images, share: float) -> Images:
    height, width = images.shape[1:3]
    rows = np.maximum(np.arange(height) - round(height * share), 0)  # the edge fills in
    columns = np.maximum(np.arange(width) - round(width * share), 0)
    return images[:, rows][:, :, columns]


# Name -> (function, what it is called with at severity 1 to 5).
CORRUPTIONS: dict[str, tuple[Callable[[Images, float], Images], tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg": (_jpeg, (80.0, 65.0, 58.0, 50.0, 40.0)),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "shift": (_shift, (1 / 32, 2 / 32, 3 / 32, 4 / 32, 6 / 32)),
}


def corrupt(images: Images, name: str, severity: int) -> Images:
    """Images with a corruption of CORRUPTIONS, at a severity from 1 to 5."""
    function, amounts = CORRUPTIONS[name]
    return function(images, amounts[severity - 1])
