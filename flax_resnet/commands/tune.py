"""Times what can compute a network's convolutions on this machine's CPU, for config.conv='auto'."""

import argparse

from flax_resnet.commands.arguments import classes_and_shape
from flax_resnet.config.conv_choice import conv_shapes, fastest
from flax_resnet.config.load import check_image_size, load_config
from flax_resnet.models.cpu.conv import IMPLEMENTATIONS
from flax_resnet.models.cpu.measure import measure
from flax_resnet.process.errors import UserError
from flax_resnet.process.machine import processor, usable_cores
from flax_resnet.process.paths import default_cache_dir
from flax_resnet.report.table import Table

LONG_RUN = 10**9  # images: what compiling takes is nothing to it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="names the network")
    parser.add_argument("--image-size", type=int, help="image side in pixels, where unknown")
    parser.set_defaults(overrides=[], classes=2)  # their number changes no convolution


def run(args: argparse.Namespace) -> int:
    """Measures anew, keeps the timings for later runs, and prints them."""
    config = load_config(args.config, args.overrides)
    _, shape = classes_and_shape(args, config)
    check_image_size(config, shape)
    shapes = conv_shapes(config, shape)
    timings = measure(shapes, config.batch_size, default_cache_dir())
    if not timings or not all(timings.values()):
        raise UserError("the convolutions could not be timed: the process that does it ended early")
    choice = {name: picked for name, picked, _ in fastest(shapes, timings, LONG_RUN)}
    names = [n for n in IMPLEMENTATIONS if any(n in found for found in timings.values())]
    rows, native, picked = [], 0.0, 0.0
    for conv, times in shapes.items():
        found, name = timings[conv], choice[str(conv)]
        cells = [f"{1e6 * found[n].seconds:,.0f}" if n in found else "" for n in names]
        rows.append((conv.described, str(times), *cells, name))
        native += times * found["native"].seconds
        picked += times * found[name].seconds
    print(f"{config.model}, {config.dtype}, on {usable_cores()} cores of {processor()}")
    print("kernel/stride+padding, image, channels in>out; microseconds an image with gradients:\n")
    align = "lr" + "r" * len(names) + "l"
    print(Table(("Convolution", "Number", *names, "Taken"), rows, align).text())
    print("\nWinograd's algorithm is taken where it gains a fifth, in a run that is long enough.")
    print(f"All convolutions: {native * 1e3:.2f} ms an image by XLA, {picked * 1e3:.2f} as taken.")
    return 0
