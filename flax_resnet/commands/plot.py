"""Curves of a run, or of several in one figure."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--workdir",
        nargs="+",
        required=True,
        metavar="DIR",
        help="run folders; with a single one, redraws its loss.png and accuracy.png",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="one figure of all runs: .png, .svg or .pdf (default for several: comparison.png)",
    )


def run(args: argparse.Namespace) -> int:
    """Draws the figures and prints the files written."""
    from pathlib import Path

    from flax_resnet.plots import curves as plots
    from flax_resnet.runs.folder import RunFolder

    runs = [RunFolder(workdir) for workdir in args.workdir]
    if len(runs) == 1 and args.output is None:
        paths = plots.draw_run(runs[0], runs[0].config().reference_log)
    else:
        paths = [plots.draw_comparison(runs, Path(args.output or "comparison.png"))]
    for path in paths:
        print(path)
    return 0
