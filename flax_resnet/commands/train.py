"""Trains a network; run again, the same command resumes where it stopped.

`python train.py` is this command, too. Exit codes: 0 finished, 2 bad config or input, 130 and 143
saved after Ctrl-C and SIGTERM.
"""

import argparse
import sys
from pathlib import Path

from flax_resnet.process.determinism import use_deterministic_kernels
from flax_resnet.process.malloc import keep_freed_memory
from flax_resnet.process.signals import interrupted_code


def run(args: argparse.Namespace) -> int:
    """Trains; 130 or 143 where a signal stopped it."""
    try:
        # Imported in this order: memory before JAX, which starts threads, flags before its backend.
        keep_freed_memory()

        from flax_resnet.config.load import load_config

        config = load_config(args.config, args.overrides)
        if config.deterministic:
            use_deterministic_kernels()

        from flax_resnet.data.cache import default_cache_dir
        from flax_resnet.process.compile_cache import keep_compiled
        from flax_resnet.training.loop import train_and_evaluate

        keep_compiled(default_cache_dir())
        workdir = args.workdir or Path("runs") / Path(args.config).stem
        profile_dir = Path(args.profile) if args.profile else None
        outcome = train_and_evaluate(config, workdir, profile_dir=profile_dir)
    except KeyboardInterrupt as stopped:
        print("stopped; run the same command again to resume from the last save", file=sys.stderr)
        return interrupted_code(stopped)
    return 0 if outcome.signum is None else 128 + outcome.signum
