"""Numbers as typed on the command line: '5e6', '1.5,2', '32-96:8'."""

import math

from flax_resnet.process.errors import UserError


def whole_number(flag: str, text: str) -> int:
    """'5000000', '5_000_000' or '5e6'.

    Raises:
      UserError: no whole number from 1 on, naming the flag.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (1 <= number < math.inf and number == int(number)):
        raise UserError(f"{flag} is {text!r}: it must be a whole number from 1 on, such as 5e6")
    return int(number)


def whole_numbers(flag: str, text: str, low: int = 1) -> tuple[int, ...]:
    """'1,3' or '3-5' (both ends in it) or '32-96:8' (in steps of 8), in the order typed.

    Raises:
      UserError: not so, or a number below `low`, naming the flag.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            ends, _, step = part.partition(":")
            first, _, last = ends.partition("-")
            numbers += range(int(first), int(last or first) + 1, int(step or 1))
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < low:
        raise UserError(
            f"{flag} is {text!r}: it must be whole numbers from {low} on, such as 1,3 or 3-5 or "
            "32-96:8"
        )
    return tuple(numbers)


def odd_numbers(flag: str, text: str) -> tuple[int, ...]:
    """As whole_numbers, for the sides of kernels.

    Raises:
      UserError: as there, or a number is even.
    """
    numbers = whole_numbers(flag, text)
    if any(number % 2 == 0 for number in numbers):
        raise UserError(f"{flag} is {text!r}: kernels have odd sides")
    return numbers


def factors(flag: str, text: str) -> tuple[float, ...]:
    """'2' or '1.5,2'.

    Raises:
      UserError: not so, or a number is below 1 or above 16, naming the flag.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 16 for number in numbers):
        raise UserError(f"{flag} is {text!r}: it must be numbers from 1 to 16, such as 1.5,2")
    return numbers
