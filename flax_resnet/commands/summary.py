"""The layer table of a config's network, as in the paper's Figures 4(b) and 4(c)."""

import argparse

from flax_resnet.commands.arguments import classes_and_shape
from flax_resnet.config.build import build_model
from flax_resnet.config.load import check_image_size, load_config
from flax_resnet.models.summary import format_summary, summarize


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    config = load_config(args.config, args.overrides)
    classes, shape = classes_and_shape(args, config)
    check_image_size(config, shape)
    summary = summarize(build_model(config, classes), shape)
    title = f"{config.model}, {shape[0]} x {shape[1]} images, {classes} classes"
    print(format_summary(summary, title))
    return 0
