import pytest

from flax_resnet.process.errors import UserError
from flax_resnet.search.number_ranges import factors, odd_numbers, whole_number, whole_numbers


@pytest.mark.parametrize("text", ["5000000", "5_000_000", "5e6"])
def test_a_large_number_may_be_typed_in_three_ways(text):
    assert whole_number("--max-params", text) == 5_000_000


@pytest.mark.parametrize("text", ["", "many", "0", "-1", "1.5", "nan", "inf"])
def test_what_is_no_whole_number_is_named_with_its_flag(text):
    with pytest.raises(UserError, match=f"^--max-params is '{text}': it must be a whole number"):
        whole_number("--max-params", text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", (3,)),
        ("1,3", (1, 3)),
        ("3-5", (3, 4, 5)),
        ("32-96:32", (32, 64, 96)),
        ("1-2,8,16-20:2", (1, 2, 8, 16, 18, 20)),
    ],
)
def test_ranges_hold_both_their_ends(text, numbers):
    assert whole_numbers("--blocks", text) == numbers


@pytest.mark.parametrize("text", ["", "a", "5-3", "0", "-2", "1-4:0", "1,", "1-3-5", "1.5"])
def test_what_is_no_range_is_named_with_its_flag(text):
    with pytest.raises(UserError, match=f"^--blocks is '{text}': it must be whole numbers from 1"):
        whole_numbers("--blocks", text)


def test_zero_is_allowed_where_it_means_something():
    assert whole_numbers("--pools", "0,4", low=0) == (0, 4)


def test_kernels_have_odd_sides():
    assert odd_numbers("--kernels", "1-7:2") == (1, 3, 5, 7)
    with pytest.raises(UserError, match="^--kernels is '3-5': kernels have odd sides"):
        odd_numbers("--kernels", "3-5")


def test_growth_never_shrinks_a_layer():
    assert factors("--growth", "1,1.5,2") == (1.0, 1.5, 2.0)
    for text in ("0.5", "x", "", "nan", "1e9"):
        with pytest.raises(UserError, match="^--growth is "):
            factors("--growth", text)
