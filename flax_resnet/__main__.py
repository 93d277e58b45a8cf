"""python -m flax_resnet COMMAND: everything but training one network."""

import argparse
import importlib
import sys

from flax_resnet.process.console import exit_code, leave

COMMANDS = {
    "train": "trains a config's network, or resumes a run",
    "summary": "layer table, parameters and multiply-adds of a config's network",
    "design": "which ResNets fit a number of parameters; a race chooses among them",
    "evaluate": "loss and accuracy of a trained run on its test images",
    "predict": "class probabilities of image files",
    "plot": "curves of a run, or of several in one figure",
    "paper": "the paper's figures, tables and claims, trained and reported anew",
    "export": "a trained run's weights as one safetensors file",
}


def main(argv: list[str]) -> int:
    """Runs a command; returns its exit code: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m flax_resnet", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:  # a command's module and what it imports load only when it runs
            module = importlib.import_module(f"flax_resnet.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args, rest = parser.parse_known_args(argv)
    takes_overrides = hasattr(args, "overrides")
    if takes_overrides:
        args.overrides = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return exit_code(lambda: args.run(args))


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
