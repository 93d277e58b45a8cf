"""Types of the commands' arguments, for argparse."""

import argparse
import math
from collections.abc import Callable

MOST_NUMBERS = 100_000  # of a range


def integers_from(low: int) -> Callable[[str], tuple[int, ...]]:
    """An argparse type: integers from `low` on, as '1,3' or '3-5' (ends included) or '32-96:8'."""

    def parse(text: str) -> tuple[int, ...]:
        numbers: list[int] = []
        try:
            for part in text.split(","):
                ends, _, step = part.partition(":")
                first, _, last = ends.partition("-")
                numbers += range(int(first), int(last or first) + 1, int(step or 1))[:MOST_NUMBERS]
        except (ValueError, OverflowError):
            numbers = []
        if len(numbers) >= MOST_NUMBERS:
            raise argparse.ArgumentTypeError(f"{text!r} has {MOST_NUMBERS:,} numbers or more")
        if not numbers or min(numbers) < low:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a range of integers from {low}, such as 1,3 or 3-5 or 32-96:8"
            )
        return tuple(numbers)

    return parse


integers = integers_from(1)


def odd_integers(text: str) -> tuple[int, ...]:
    """An argparse type: as `integers`, all of them odd."""
    numbers = integers(text)
    if any(number % 2 == 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: kernel sizes are odd")
    return numbers


def positive(text: str) -> int:
    """An argparse type: a positive integer, as '5000000', '5_000_000' or '5e6'."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (1 <= number < math.inf and number == int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(number)


def factors(text: str) -> tuple[float, ...]:
    """An argparse type: numbers from 1 to 16, as '2' or '1.5,2'."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 16 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers from 1 to 16, such as 1.5,2")
    return numbers
