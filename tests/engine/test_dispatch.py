import pytest

from flax_resnet.engine import dispatch
from flax_resnet.engine.dispatch import InFlight, choose_steps_per_dispatch


@pytest.mark.parametrize(
    ("platform", "steps", "batch_bytes", "expected"),
    [
        pytest.param("cpu", 390, 128 * 3072, 1, id="cpu"),
        pytest.param("gpu", 390, 128 * 3072, 78, id="a divisor"),
        pytest.param("gpu", 48, 1024 * 3072, 8, id="what fits"),
        pytest.param("gpu", 97, 1024 * 3072, 10, id="a prime number of steps"),
        pytest.param("gpu", 5000, 256 * 224 * 224 * 3, 1, id="ImageNet"),
        pytest.param("gpu", 0, 128 * 3072, 1, id="no full batch"),
        pytest.param("gpu", 2, 64, 2, id="fewer than fit"),
    ],
)
def test_steps_per_dispatch(platform, steps, batch_bytes, expected):
    assert choose_steps_per_dispatch(platform, steps, batch_bytes) == expected


@pytest.mark.parametrize(
    ("platform", "steps_per_dispatch", "limit"), [("gpu", 1, 16), ("gpu", 78, 2)]
)
def test_the_host_runs_ahead_by_a_few_dispatches(platform, steps_per_dispatch, limit):
    in_flight = InFlight(platform, steps_per_dispatch)
    waited_for = [in_flight.add(number) for number in range(limit + 2)]
    assert waited_for == [None] * limit + [0, 1]


def test_several_processes_wait_for_the_same_steps():
    in_flight = InFlight("cpu", alone=False)
    assert [in_flight.add(number) for number in range(3)] == [0, 1, 2]


def test_on_a_cpu_the_host_runs_ahead_while_steps_are_short(monkeypatch):
    in_flight = InFlight("cpu")
    assert [in_flight.add(number) for number in range(5)] == [0, None, None, 1, 2]
    monkeypatch.setattr(dispatch, "LONG_STEP_SECONDS", -1.0)
    assert [in_flight.add(number) for number in range(5, 8)] == [3, 6, 7]
