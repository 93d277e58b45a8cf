"""A page on a run, or on several side by side: one HTML file that needs no network."""

import argparse
import shlex
from pathlib import Path

from flax_resnet.commands.arguments import JUDGING, add_judging
from flax_resnet.process.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_judging(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html, of a single run in its folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Judges the runs, writes the page and prints its name."""
    from flax_resnet.judging.judge import judge
    from flax_resnet.judging.page import write_page
    from flax_resnet.plots.curves import distinguishing_names
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.paths import default_cache_dir

    alone = len(args.workdir) == 1
    output = args.output or (Path(args.workdir[0]) if alone else Path()) / "report.html"
    if output.suffix != ".html" or output.is_dir():  # not a file of the run, by mistake
        raise UserError(f"--output {str(output)!r}: name an .html file", field="--output")
    distinguishing_names([Path(workdir) for workdir in args.workdir])  # before the work
    keep_compiled(default_cache_dir())
    asked = {name: getattr(args, name) for name in JUDGING}
    judged = [judge(workdir, **asked) for workdir in args.workdir]
    write_page(judged, _command(args, output), output)
    print(output)
    return 0


def _command(args: argparse.Namespace, output: Path) -> str:
    words = ["python", "-m", "flax_resnet", "report", "--workdir", *args.workdir]
    for name in JUDGING:
        value = getattr(args, name)
        if value not in (None, False):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join([*words, "--output", str(output)])
