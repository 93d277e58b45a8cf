"""Arguments that several commands share."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from flax_resnet.process.errors import UserError

# Classes and image sides of well-known sets: counting a network must need no data.
KNOWN_SETS = {
    "cifar10": (10, 32),
    "cifar100": (100, 32),
    "digits": (10, 32),
    "svhn_cropped": (10, 32),
    "mnist": (10, 28),
    "fashion_mnist": (10, 28),
    "imagenet2012": (1000, 224),
}


def integers_from(low: int) -> Callable[[str], tuple[int, ...]]:
    """An argparse type: integers from `low` on, as '1,3' or '3-5' (ends included) or '32-96:8'."""

    def parse(text: str) -> tuple[int, ...]:
        numbers: list[int] = []
        try:
            for part in text.split(","):
                ends, _, step = part.partition(":")
                first, _, last = ends.partition("-")
                numbers += range(int(first), int(last or first) + 1, int(step or 1))
        except ValueError:
            numbers = []
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


def add_run(parser: argparse.ArgumentParser) -> None:
    """--workdir, and --checkpoint last or best."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a trained run")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="best: of the highest validation accuracy (default: %(default)s)",
    )


def add_classes_and_image_size(parser: argparse.ArgumentParser) -> None:
    """--classes and --image-size, for sets that are not in KNOWN_SETS."""
    parser.add_argument("--classes", type=positive, help="number of classes, if not known")
    parser.add_argument(
        "--image-size", type=positive, help="side of the images in pixels, likewise"
    )


def classes_and_shape(args: argparse.Namespace, config: Any) -> tuple[int, tuple[int, int, int]]:
    """Number of classes and (height, width, 3) of the config's images, from no data.

    Raises:
      UserError: one of both is neither known nor given.
    """
    # Imported here: they load JAX, and arguments are declared before it is known to be needed.
    from flax_resnet.config.fields import IMAGE_SIDE, Rule, integer
    from flax_resnet.data.dataset import MAX_CLASSES

    known_classes, known_side = KNOWN_SETS.get(config.dataset, (None, None))

    def known(flag: str, rule: Rule, given: int | None, otherwise: int | None) -> int:
        value = otherwise if given is None else given
        if value is None:
            raise UserError(
                f"{flag} is needed for config.dataset={config.dataset!r}",
                code="missing",
                field=flag,
            )
        if not rule(value):
            raise UserError(f"{flag} is {value}: it must be {rule.words}", field=flag)
        return value

    classes = known("--classes", integer(1, MAX_CLASSES), args.classes, known_classes)
    side = known("--image-size", IMAGE_SIDE, args.image_size, config.image_size or known_side)
    return classes, (side, side, 3)
