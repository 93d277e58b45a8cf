"""Trains a network: python train.py --config configs/revised.py [--config.FIELD=VALUE ...].

Run again, the same command goes on where it stopped. Exit codes: 0 finished, 2 bad config or
input, 130 and 143 saved after Ctrl-C and SIGTERM.
"""

import argparse
import sys
from pathlib import Path

from flax_resnet.process.console import exit_code, leave
from flax_resnet.process.signals import interrupted_code


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(lambda: train(argv))


def train(argv: list[str]) -> int:
    """Runs the command; raises what `exit_code` prints."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        default="configs/quickstart.py",
        metavar="FILE",
        help="a config file (default: %(default)s); every field is in configs/base.py",
    )
    parser.add_argument("--workdir", metavar="DIR", help="default: runs/<config name>")
    parser.add_argument("--profile", metavar="DIR", help="write a trace of a few steps there")
    args, overrides = parser.parse_known_args(argv)
    try:
        # Imported here: --help and a misspelt flag need no JAX. Memory first: JAX starts threads.
        from flax_resnet.process.malloc import keep_freed_memory

        keep_freed_memory()

        from flax_resnet.config.load import load_config

        config = load_config(args.config, overrides)
        if config.deterministic:
            from flax_resnet.process.determinism import use_deterministic_kernels

            use_deterministic_kernels()

        from flax_resnet.data.cache import default_cache_dir
        from flax_resnet.process.compile_cache import keep_compiled
        from flax_resnet.training.loop import train_and_evaluate

        keep_compiled(default_cache_dir())
        workdir = args.workdir or Path("runs") / Path(args.config).stem
        profile_dir = Path(args.profile) if args.profile else None
        outcome = train_and_evaluate(config, workdir, profile_dir=profile_dir)
    except KeyboardInterrupt as stopped:
        print("stopped; run the same command again to go on from the last save", file=sys.stderr)
        return interrupted_code(stopped)
    return 0 if outcome.signum is None else 128 + outcome.signum


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
