import numpy as np
import pytest

from flax_resnet.inference.calibration import calibrate


def test_images_are_binned_by_the_probability_of_the_likeliest_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.0, 1.0]])
    measured = calibrate(probabilities, np.array([0, 0, 0, 1]), bins=4)
    assert measured.images == (0, 0, 1, 3)  # 0.5 to 0.75; 0.75 to 1
    assert measured.confidence == pytest.approx((0, 0, 0.6, 0.9))
    assert measured.accuracy == pytest.approx((0, 0, 1, 2 / 3))
    assert measured.mean_confidence == pytest.approx(0.825)
    assert measured.mean_accuracy == 0.75
    assert measured.error == pytest.approx((0.4 + 3 * (0.9 - 2 / 3)) / 4)


def test_confidence_that_is_right_has_no_error():
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1, 200_000)
    labels = (rng.uniform(size=len(first)) > first).astype(int)
    assert calibrate(np.stack([first, 1 - first], 1), labels).error < 0.01
