"""Trains a network; run again, the same command resumes where the run stopped.

`python train.py` is this command, too. Exit codes: 0 finished, 2 bad config or input, 130 and 143
saved after Ctrl-C and SIGTERM.
"""

import argparse
import contextlib
import logging
from pathlib import Path

from flax_resnet.process.determinism import use_deterministic_kernels
from flax_resnet.process.distributed import joined, place_from
from flax_resnet.process.malloc import keep_freed_memory
from flax_resnet.process.signals import StopRequest


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0, or 128 plus the number of the signal that stopped it."""
    # Imported in this order: memory before JAX, which starts threads, flags before its backend.
    keep_freed_memory()

    from flax_resnet.config.load import load_config

    config = load_config(args.config, args.overrides)
    place = place_from(args.coordinator, args.num_processes, args.process_id)
    if config.deterministic:
        use_deterministic_kernels()

    import jax

    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.paths import default_cache_dir
    from flax_resnet.training.hooks import CollectGarbage, Trace
    from flax_resnet.training.loop import train_and_evaluate

    keep_compiled(default_cache_dir())
    workdir = args.workdir or Path("runs") / Path(args.config).stem
    stop = StopRequest(listens=True)
    several = place is not None or config.distributed == "auto"
    with joined(place) if several else contextlib.nullcontext():
        is_main = not several or jax.process_index() == 0
        if not is_main:
            logging.getLogger("flax_resnet").setLevel(logging.ERROR)
        hooks = [
            CollectGarbage(),
            *([Trace(Path(args.profile))] if args.profile and is_main else []),
        ]
        outcome = train_and_evaluate(config, workdir, stop=stop, hooks=hooks)
    return 0 if outcome.signum is None else 128 + outcome.signum
