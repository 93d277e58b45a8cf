"""Arguments that several commands share."""

import argparse


def add_run(parser: argparse.ArgumentParser) -> None:
    """--workdir, and --checkpoint last or best."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a trained run")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="best: of the highest validation accuracy (default: %(default)s)",
    )
