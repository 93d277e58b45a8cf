import numpy as np

from flax_resnet.models.whitening import EPSILON, IMAGES, whitening_filters

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def smooth_images(count: int) -> np.ndarray:
    """Images whose neighboring pixels are alike, as real ones' are."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 5, 6, 3)).astype(float)
    large = small.repeat(2, 1).repeat(2, 2)
    blurred = (large[:, 1:, 1:] + large[:, :-1, :-1] + large[:, 1:, :-1] + large[:, :-1, 1:]) / 4
    return (0.9 * blurred + rng.uniform(0, 25, blurred.shape)).astype(np.uint8)


def patches_of(images: np.ndarray) -> np.ndarray:
    """A row a patch, one patch after the other."""
    normalized = (images / 255 - np.array(MEAN)) / np.array(STD)
    height, width = images.shape[1:3]
    return np.stack(
        [
            normalized[:, i : i + 2, j : j + 2].reshape(len(images), -1)
            for i in range(height - 1)
            for j in range(width - 1)
        ]
    ).reshape(-1, 12)


def test_responses_are_uncorrelated_with_a_variance_of_one_and_each_has_its_negative():
    images = smooth_images(300)
    filters = whitening_filters(images, MEAN, STD)
    assert filters.shape == (2, 2, 3, 24) and filters.dtype == np.float32
    np.testing.assert_array_equal(filters[..., 12:], -filters[..., :12])
    patches = patches_of(images)
    before = patches.T @ patches / len(patches)
    assert np.abs(before - np.diag(np.diag(before))).max() > 0.5  # or there is nothing to whiten
    responses = patches @ filters[..., :12].reshape(12, 12)
    covariance = responses.T @ responses / len(responses)
    smallest = np.linalg.eigvalsh(before)[0]
    np.testing.assert_allclose(covariance, np.eye(12), atol=2 * EPSILON / smallest + 1e-4)


def test_only_the_first_images_count():
    images = np.concatenate([smooth_images(IMAGES), np.zeros((9, 9, 11, 3), np.uint8)])
    np.testing.assert_array_equal(
        whitening_filters(images, MEAN, STD), whitening_filters(images[:IMAGES], MEAN, STD)
    )
