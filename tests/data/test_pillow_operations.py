"""Operations on a batch against Pillow's on each image, to the bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from flax_resnet.data.transforms import enhance, lookup, trivial_augment
from flax_resnet.data.transforms.color_jitter import ColorJitter
from flax_resnet.data.transforms.trivial_augment import LEVELS, OPERATIONS, TrivialAugment


def some_images(num: int, shape: tuple[int, int] = (24, 19)) -> np.ndarray:
    """Noise of different ranges, and crops of photographs; the first has a single color."""
    rng = np.random.RandomState(0)
    lows, spans = rng.randint(0, 128, (2, num, 1, 1, 3))
    images = (lows + rng.random_sample((num, *shape, 3)) * (spans + 1)).astype(np.uint8)
    photo = np.asarray(load_sample_images().images[0])
    for i in range(num // 2, num):
        top, left = rng.randint(0, 300, 2)
        images[i] = photo[top : top + shape[0], left : left + shape[1]]
    images[0], images[1, 3:5] = 77, 200
    return images


def by_pillow(images: np.ndarray, change: Callable[..., Image.Image], *values: Any) -> np.ndarray:
    """Each image changed by Pillow."""
    rows = zip(images, *values, strict=True)
    return np.stack([np.asarray(change(Image.fromarray(x), *v)) for x, *v in rows])


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix)


def original(name: str, level: int, opposite: int) -> Callable[[Image.Image], Image.Image]:
    """An operation of the authors' code."""
    sign = -1 if opposite else 1
    factor = level * 1.99 / 30 + 0.01
    shear, pixels = sign * 0.99 * level / 30, sign * int(32 * level / 30)
    operations: dict[str, Callable[[Image.Image], Image.Image]] = {
        "identity": lambda image: image,
        "shear_x": affine(1, shear, 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, shear, 1, 0),
        "translate_x": affine(1, 0, pixels, 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, pixels),
        "rotate": lambda image: image.rotate(sign * int(135 * level / 30)),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        "posterize": lambda image: ImageOps.posterize(image, 8 - int(level * 6 / 30)),
        "solarize": lambda image: ImageOps.solarize(image, 256 - int(level * 256 / 30)),
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
    }
    return operations[name]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(32, 32), (24, 19), (2, 5)])
def test_every_level_of_trivial_augment_is_pillows(name, shape):
    images = some_images(12, shape)
    number = OPERATIONS.index(name)
    for level in range(LEVELS):
        for opposite in (0, 1):
            draws = np.tile(np.array([number, level, opposite], np.int8), (len(images), 1))
            ours = TrivialAugment().apply(images, draws)
            np.testing.assert_array_equal(
                ours, by_pillow(images, original(name, level, opposite)), f"{level} {opposite}"
            )


def test_a_batch_of_mixed_operations_is_that_of_its_images_and_leaves_its_input(monkeypatch):
    images = some_images(300)
    before = images.copy()
    transform = TrivialAugment()
    draws = transform.draw(3, 2, np.arange(300))
    ours = transform.apply(images, draws)
    for image, after, (number, level, opposite) in zip(images, ours, draws, strict=True):
        change = original(OPERATIONS[number], int(level), int(opposite))
        np.testing.assert_array_equal(after, np.asarray(change(Image.fromarray(image))))
    np.testing.assert_array_equal(images, before)
    monkeypatch.setattr(trivial_augment, "_TABLE_BYTES", 0)  # as for images too large for a table
    np.testing.assert_array_equal(transform.apply(images, draws), ours)


def test_trivial_augment_draws_each_operation_level_and_direction_alike():
    draws = TrivialAugment().draw(1, 0, np.arange(43_400))
    for column, high in zip(draws.T, (14, 31, 2), strict=True):
        counts = np.bincount(column, minlength=high)
        assert len(counts) == high and abs(counts * high / 43_400 - 1).max() < 0.12, counts
    again, other = (TrivialAugment().draw(1, epoch, np.arange(43_400)) for epoch in (0, 1))
    assert (again == draws).all() and (other != draws).any()


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_a_random_factor_is_pillows(name):
    images = some_images(400)
    factors = np.random.RandomState(1).uniform(0, 2.5, 400)
    factors[:3] = 0, 1, 2
    ours = getattr(enhance, name.lower())(images, factors)
    pillows = by_pillow(images, lambda x, f: getattr(ImageEnhance, name)(x).enhance(f), factors)
    np.testing.assert_array_equal(ours, pillows)


def test_every_threshold_and_number_of_bits_is_pillows():
    images = some_images(257)
    thresholds, bits = np.arange(257), 1 + np.arange(257) % 8
    np.testing.assert_array_equal(
        lookup.solarize(images, thresholds), by_pillow(images, ImageOps.solarize, thresholds)
    )
    pillows = by_pillow(images, lambda x, n: ImageOps.posterize(x, int(n)), bits)
    np.testing.assert_array_equal(lookup.posterize(images, bits), pillows)


def test_color_jitter_changes_brightness_contrast_and_saturation_in_turn():
    images = some_images(100)
    before = images.copy()
    jitter = ColorJitter((0.4, 0.3, 0.9))
    draws = jitter.draw(0, 1, np.arange(100))

    def change(image: Image.Image, *factors: float) -> Image.Image:
        names = ("Brightness", "Contrast", "Color")
        for name, factor in zip(names, factors, strict=True):
            image = getattr(ImageEnhance, name)(image).enhance(float(factor))
        return image

    np.testing.assert_array_equal(jitter.apply(images, draws), by_pillow(images, change, *draws.T))
    np.testing.assert_array_equal(images, before)
    assert (abs(draws - 1).max(0) <= (0.4, 0.3, 0.9)).all()
    assert (abs(draws - 1).max(0) > (0.38, 0.28, 0.86)).all()
    only = ColorJitter((0.0, 0.3, 0.0))
    draws[:, 1] = 1
    np.testing.assert_array_equal(only.apply(images, draws), images)
