import io

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image, ImageFilter

from flax_resnet.judging.corruptions import CORRUPTIONS, SEVERITIES, corrupt


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Real pictures of scikit-learn, shrunk to 48 x 32."""
    from sklearn.datasets import load_sample_images

    return np.stack(
        [np.asarray(Image.fromarray(x).resize((48, 32))) for x in load_sample_images().images]
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_changes_more_than_the_one_before(photos, name):
    before = photos.copy()
    errors = []
    for severity in SEVERITIES:
        corrupted = corrupt(photos, name, severity)
        assert corrupted.shape == photos.shape and corrupted.dtype == np.uint8
        np.testing.assert_array_equal(corrupted, corrupt(photos, name, severity))
        errors.append(np.abs(corrupted.astype(float) - photos).mean())
    assert errors == sorted(errors) and 0.2 < errors[0] < 0.9 * errors[-1] < 60
    np.testing.assert_array_equal(photos, before)


def test_corruptions_are_what_their_names_say(photos):
    image = photos[0]
    hsv = rgb_to_hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    brighter = corrupt(photos, "brightness", 5)[0].astype(int)
    assert np.abs(brighter - 255 * hsv_to_rgb(hsv)).max() <= 1
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(corrupt(photos, "jpeg", 5)[0], np.asarray(Image.open(file)))
    flat = corrupt(photos, "contrast", 5)[0].astype(float)
    assert np.ptp(flat) < 0.16 * np.ptp(image.astype(float)) + 40
    np.testing.assert_allclose(flat.mean((0, 1)), image.mean((0, 1)), atol=0.5)
    moved = corrupt(photos, "shift", 2)[0]  # two pixels of 32, three of 48
    np.testing.assert_array_equal(moved[2:, 3:], image[:-2, :-3])
    np.testing.assert_array_equal(moved[0], moved[2])
    noise = corrupt(np.full((4, 64, 64, 3), 128, np.uint8), "noise", 3)
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(noise.mean() - 128) < 0.5
    assert len(np.unique(corrupt(photos, "pixelate", 5)[0], axis=0)) <= int(32 * 0.65)
    blurred = corrupt(photos, "blur", 5)[0].astype(float)
    other = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.0)), float)
    assert np.abs(blurred - other)[4:-4, 4:-4].mean() < 1.5  # Pillow approximates by boxes


def test_black_becomes_gray_and_lengths_grow_with_the_image():
    black = np.zeros((1, 32, 32, 3), np.uint8)
    assert set(np.unique(corrupt(black, "brightness", 1))) == {13}
    edge = np.zeros((1, 64, 64, 3), np.uint8)
    edge[:, :, 32:] = 255
    small = edge[:, ::2, ::2]
    widths = [int(((corrupt(x, "blur", 5)[0, 0, :, 0] % 255) > 0).sum()) for x in (edge, small)]
    assert widths[0] >= 1.6 * widths[1]
