"""Trains and uses ResNets: flax_resnet COMMAND, or python -m flax_resnet COMMAND."""

import argparse
import importlib
import sys
from typing import NoReturn

from flax_resnet import __version__
from flax_resnet.commands.arguments import add_arguments
from flax_resnet.process.console import exit_code, leave
from flax_resnet.process.signals import end_at_ctrl_c

COMMANDS = {
    "train": "train a config's network, or resume a run",
    "summary": "print the layers, parameters and multiply-adds of a config's network",
    "tune": "time a network's convolutions on this CPU, and show which are the fastest",
    "design": "list the ResNets within a parameter budget, or race them",
    "sweep": "train a recipe with several seeds and values, and compare them",
    "evaluate": "measure runs on their test images, or on others",
    "compare": "compare runs in one table, with what differs in their recipes",
    "report": "write a page on a run, or on several side by side",
    "predict": "classify images: files, folders, arrays",
    "serve": "show a page to try a run's network, and answer over HTTP",
    "plot": "plot a run's curves, or compare several runs",
    "paper": "train what the paper's figures, tables and claims need, and report",
    "export": "write a run's weights, or its network as a program, for other programs",
    "import": "make a run's folder of a PyTorch file's weights",
}


def main(argv: list[str]) -> int:
    """Runs a command; returns its exit code: 0, or 2 for bad input."""
    return exit_code(lambda: _run(argv))


def _run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="flax_resnet", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:
            add_arguments(command, name)
    args, rest = parser.parse_known_args(argv)
    takes_overrides = hasattr(args, "overrides")
    if takes_overrides:
        args.overrides = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # A command's module, and what it imports, loads only when it runs.
    return importlib.import_module(f"flax_resnet.commands.{args.command}").run(args)


def console(argv: list[str] | None = None) -> NoReturn:
    """The program `flax_resnet`."""
    end_at_ctrl_c()
    leave(main(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    console()
