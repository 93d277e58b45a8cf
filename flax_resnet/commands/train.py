"""Trains a network; run again, the same command resumes where the run stopped."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--config",
        default="quickstart",
        metavar="NAME|FILE",
        help="a config's name or file (default: %(default)s)",
    )
    parser.add_argument("--workdir", metavar="DIR", help="default: runs/<config name>")
    parser.add_argument("--profile", metavar="DIR", help="write a trace of a few steps there")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0, or 128 plus the number of the signal that stopped it."""
    # Memory first: JAX starts threads, which allocate.
    from flax_resnet.process.malloc import keep_freed_memory

    keep_freed_memory()

    from flax_resnet.config.load import load_config

    config = load_config(args.config, args.overrides)
    if config.deterministic:
        from flax_resnet.process.determinism import use_deterministic_kernels

        use_deterministic_kernels()

    from flax_resnet.process.compile_cache import default_cache_dir, keep_compiled
    from flax_resnet.process.signals import StopRequest
    from flax_resnet.training.hooks import CollectGarbage, Trace
    from flax_resnet.training.loop import train_and_evaluate

    keep_compiled(default_cache_dir())
    hooks = [CollectGarbage(), *([Trace(Path(args.profile))] if args.profile else [])]
    workdir = args.workdir or Path("runs") / Path(args.config).stem
    with StopRequest().listening() as stop:
        try:
            outcome = train_and_evaluate(config, workdir, stop=stop, hooks=hooks)
        except KeyboardInterrupt:
            print("stopped; run the same command again to resume", file=sys.stderr)
            raise
    return 0 if outcome.signum is None else 128 + outcome.signum
