import pytest

from flax_resnet.optim.schedules import make_schedule


def rate(step: int, name: str, **changes) -> float:
    arguments = {"learning_rate": 0.1, "total_steps": 1000} | changes
    return float(make_schedule(name, **arguments)(step))


def test_constant_is_constant():
    assert rate(0, "constant") == rate(999, "constant") == pytest.approx(0.1)


def test_step_drops_at_the_fractions_of_the_run():
    for step, expected in [(0, 0.1), (499, 0.1), (501, 0.01), (749, 0.01), (751, 0.001)]:
        assert rate(step, "step") == pytest.approx(expected), step


def test_cosine_ends_at_zero_and_is_half_way_in_the_middle():
    assert rate(0, "cosine") == pytest.approx(0.1)
    assert rate(500, "cosine") == pytest.approx(0.05)
    assert rate(1000, "cosine") == pytest.approx(0, abs=1e-9)


def test_one_cycle_has_pytorchs_ends():
    assert rate(0, "one_cycle") == pytest.approx(0.1 / 25)
    assert rate(300, "one_cycle") == pytest.approx(0.1)
    assert rate(100, "one_cycle", warmup_steps=100) == pytest.approx(0.1)
    assert rate(1000, "one_cycle") == pytest.approx(0.1 / 25 / 1e4)


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_warm_up_climbs_from_zero_to_the_schedule(name):
    assert rate(0, name, warmup_steps=100) == 0
    assert rate(50, name, warmup_steps=100) == pytest.approx(0.05)
    assert rate(100, name, warmup_steps=100) == pytest.approx(0.1)


def test_step_with_warm_up_drops_at_the_same_steps():
    assert rate(499, "step", warmup_steps=100) == pytest.approx(0.1)
    assert rate(501, "step", warmup_steps=100) == pytest.approx(0.01)


def test_step_drops_that_fall_on_one_step_are_both_taken():
    short = make_schedule(
        "step", learning_rate=1.0, total_steps=2, step_boundaries=(0.4, 0.6), step_factor=0.1
    )
    assert float(short(0)) == 1 and float(short(1)) == pytest.approx(0.01)


def test_one_cycle_comes_down_in_a_run_that_is_all_climb():
    rates = [rate(step, "one_cycle", warmup_steps=1000) for step in (0, 999, 1000)]
    assert rates == pytest.approx([0.1 / 25, 0.1, 0.1 / 25 / 1e4])


@pytest.mark.parametrize("climb", [1, 29, 57, 99])
def test_one_cycle_is_highest_after_exactly_its_climb(climb):
    rates = [rate(step, "one_cycle", warmup_steps=climb, total_steps=100) for step in range(100)]
    assert rates.index(max(rates)) == climb and max(rates) == pytest.approx(0.1)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="constant, step"):
        rate(0, "exponential")


def test_linear_climbs_from_its_start_and_falls_to_its_end():
    def rates(**options: float) -> list[float]:
        return [rate(step, "linear", total_steps=100, **options) for step in (0, 10, 20, 60, 100)]

    assert rates() == pytest.approx([0.1, 0.09, 0.08, 0.04, 0])
    triangle = rates(warmup_steps=20, start=0.2, end=0.1)
    assert triangle == pytest.approx([0.02, 0.06, 0.1, 0.055, 0.01])
