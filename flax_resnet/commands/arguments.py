"""Arguments that several commands share."""

import argparse
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
    parser.add_argument("--classes", type=int, help="number of classes, where unknown")
    parser.add_argument("--image-size", type=int, help="side of the images in pixels, likewise")


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
            raise UserError(f"{flag} is needed for config.dataset={config.dataset!r}")
        if not rule(value):
            raise UserError(f"{flag} is {value}: it must be {rule.words}")
        return value

    classes = known("--classes", integer(1, MAX_CLASSES), args.classes, known_classes)
    side = known("--image-size", IMAGE_SIDE, args.image_size, config.image_size or known_side)
    return classes, (side, side, 3)
