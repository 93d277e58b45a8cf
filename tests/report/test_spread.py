import math

import pytest

from flax_resnet.report.spread import spread


def test_spread_is_mean_and_sample_deviation():
    two = spread([0.90, 0.92])
    assert (two.mean, two.count) == (pytest.approx(0.91), 2)
    assert two.std == pytest.approx(math.sqrt(2) * 0.01)
    assert str(two) == "91.00% ± 1.41%"
    assert str(spread([0.9084])) == "90.84%"


def test_interval_is_students():
    # t of 2.776 for 4 degrees of freedom; the standard error is 0.01 / sqrt(5) * sqrt(2.5).
    values = [0.89, 0.90, 0.91, 0.92, 0.88]
    low, high = spread(values).interval() or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.90)
    assert (high - low) / 2 == pytest.approx(2.7764 * math.sqrt(0.00025 / 5), rel=1e-4)
    assert spread([0.9]).interval() is None
    assert spread([0.8, 0.6]).interval() == (0, 1)
