import argparse

import pytest

from flax_resnet.commands.argument_types import (
    factors,
    integers,
    integers_from,
    odd_integers,
    positive,
)


def test_a_range_too_long_to_search_is_refused_at_once():
    with pytest.raises(argparse.ArgumentTypeError, match="100,000 numbers or more"):
        integers("1-20000000000")


@pytest.mark.parametrize("text", ["5000000", "5_000_000", "5e6"])
def test_a_large_number_may_be_typed_in_three_ways(text):
    assert positive(text) == 5_000_000


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
def test_a_range_includes_both_ends(text, numbers):
    assert integers(text) == numbers


def test_zero_is_allowed_where_it_has_a_meaning():
    assert integers_from(0)("0,4") == (0, 4)


def test_kernel_sizes_are_odd():
    assert odd_integers("1-7:2") == (1, 3, 5, 7)


def test_growth_may_be_fractional():
    assert factors("1,1.5,2") == (1.0, 1.5, 2.0)


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (positive, ["", "many", "0", "-1", "1.5", "nan", "inf"]),
        (integers, ["", "a", "5-3", "0", "-2", "1-4:0", "1,", "1-3-5", "1.5"]),
        (odd_integers, ["0", "3-5"]),
        (factors, ["0.5", "x", "", "nan", "1e9"]),
    ],
)
def test_other_text_is_refused(parse, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)
