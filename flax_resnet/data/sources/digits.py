"""scikit-learn's handwritten digits as a dataset: 1,797 images that need no download."""

import importlib.metadata

import numpy as np
from PIL import Image

from flax_resnet.data.cache import Identity
from flax_resnet.data.dataset import Dataset, make_dataset
from flax_resnet.data.image_arrays import check_memory
from flax_resnet.process.errors import UserError

# 360 of the 1,797 images, a fifth: this program's choice, as the set has no official split.
_TEST_PER_CLASS = 36
_SPLIT_SEED = 0
_SIZE = 32  # pixels: the side of a CIFAR image, so that every model for CIFAR-10 takes it


def _missing_package() -> UserError:
    return UserError(
        "dataset 'digits' needs scikit-learn; pip install scikit-learn",
        code="unavailable",
        field="config.dataset",
    )


def identify_digits(image_size: int | None) -> Identity:
    """The identity of the digits for the cache, without importing scikit-learn."""
    try:
        version = importlib.metadata.version("scikit-learn")
    except importlib.metadata.PackageNotFoundError:
        raise _missing_package() from None
    return Identity("digits", "digits", "", image_size, (version,))


def read_digits(image_size: int | None) -> Dataset:
    """Makes RGB images of the 8x8 digits (values 0-16), 32x32 unless `image_size` says otherwise.

    The images are shuffled with a fixed seed; the test split is the first 36 of every class, 360
    images, the training split the other 1,437.

    Args:
        image_size: side in pixels; None: 32.

    Raises:
        UserError: scikit-learn is not installed, or the images do not fit in memory.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise _missing_package() from None
    pixels, target = load_digits(return_X_y=True)
    size = _SIZE if image_size is None else image_size
    check_memory("digits", len(pixels), (size, size))
    # Enlarged before rounding, as floats: 17 gray levels would show as steps.
    images = np.stack([_enlarge(image * (255 / 16), size) for image in pixels.reshape(-1, 8, 8)])
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(images))
    labels = target[order]
    in_test = np.zeros(len(order), bool)
    for label in range(10):
        in_test[np.flatnonzero(labels == label)[:_TEST_PER_CLASS]] = True
    train, test = order[~in_test], order[in_test]
    return make_dataset(
        (images[train], images[test]),
        (target[train], target[test]),
        tuple(str(digit) for digit in range(10)),
        origin="digits",
        source="digits (scikit-learn, 1,437 + 360 images)",
    )


def _enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Gray values 0-255, [8, 8], to uint8 [size, size], bicubic; overshoot is clipped."""
    enlarged = Image.fromarray(image.astype(np.float32)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    return np.rint(np.clip(np.asarray(enlarged), 0, 255)).astype(np.uint8)
