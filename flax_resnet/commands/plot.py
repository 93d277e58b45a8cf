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
    parser.add_argument(
        "--against",
        choices=("epoch", "time"),
        default="epoch",
        help="the horizontal axis of such a figure (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Draws the figures and prints the files written."""
    from pathlib import Path

    from flax_resnet.plots import curves as plots
    from flax_resnet.runs.folder import RunFolder

    runs = [RunFolder(workdir) for workdir in args.workdir]
    if len(runs) == 1 and args.output is None and args.against == "epoch":
        paths = plots.draw_run(runs[0], runs[0].config().reference_log)
    else:
        output = Path(args.output or "comparison.png")
        paths = [plots.draw_comparison(runs, output, args.against)]
    for path in paths:
        print(path)
    return 0
