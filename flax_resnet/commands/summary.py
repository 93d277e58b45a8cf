"""The layer table of a config's network, as in the paper's Figures 4(b) and 4(c)."""

import argparse

# Classes and image sides of well-known sets: the summary must need no data.
KNOWN_SETS = {
    "cifar10": (10, 32),
    "cifar100": (100, 32),
    "digits": (10, 32),
    "svhn_cropped": (10, 32),
    "mnist": (10, 28),
    "fashion_mnist": (10, 28),
    "imagenet2012": (1000, 224),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file")
    parser.add_argument("--classes", type=int, help="number of classes, where unknown")
    parser.add_argument("--image-size", type=int, help="side of the images in pixels, likewise")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    from flax_resnet.build import build_model
    from flax_resnet.config import check_image_size, load_config
    from flax_resnet.errors import UserError
    from flax_resnet.summary import format_summary, summarize

    config = load_config(args.config, args.overrides)
    known_classes, known_side = KNOWN_SETS.get(config.dataset, (None, None))

    def known(flag: str, given: int | None, otherwise: int | None) -> int:
        value = otherwise if given is None else given
        if value is None:
            raise UserError(f"{flag} is needed for config.dataset={config.dataset!r}")
        if value < 1:
            raise UserError(f"{flag} is {value}: it must be a whole number from 1 on")
        return value

    classes = known("--classes", args.classes, known_classes)
    side = known("--image-size", args.image_size, config.image_size or known_side)
    shape = (side, side, 3)
    check_image_size(config, shape)
    summary = summarize(build_model(config, classes), shape)
    print(format_summary(summary, f"{config.model}, {side} x {side} images, {classes} classes"))
    return 0
