"""Trains a recipe with several seeds and values of its fields, and says what differs."""

import argparse
import json
from pathlib import Path

from flax_resnet.commands.argument_types import positive
from flax_resnet.process.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="the recipe")
    parser.add_argument(
        "--seeds",
        type=positive,
        default=3,
        metavar="N",
        help="runs of each setting, from the config's seed on (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/sweep-CONFIG)"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="train the seeds of a setting as one program, for an accelerator that one run of a "
        "small network leaves idle",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="train nothing: report the existing runs"
    )
    parser.set_defaults(overrides=[])
    parser.epilog = (
        "--config.FIELD=A,B,C tries several values of a field, of several fields all combinations; "
        "run again, the same command resumes"
    )


def run(args: argparse.Namespace) -> int:
    """Trains, prints the table, writes it with the picture; 128 + signal if stopped."""
    from flax_resnet.process.malloc import keep_freed_memory

    keep_freed_memory()  # before JAX starts threads

    from flax_resnet.config.load import find_config
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.files import write_text
    from flax_resnet.process.paths import default_cache_dir
    from flax_resnet.search.sweep import (
        as_json,
        format_results,
        plan_sweep,
        read_results,
        run_sweep,
    )
    from flax_resnet.search.sweep_plot import draw_sweep

    path = find_config(args.config)
    runs = plan_sweep(path, args.overrides, args.seeds)
    if any(run.config.deterministic for run in runs):
        from flax_resnet.process.determinism import use_deterministic_kernels

        use_deterministic_kernels()
    out = args.out or Path("runs") / f"sweep-{path.stem}"
    signum = None
    if not args.report_only:
        keep_compiled(default_cache_dir())
        signum = run_sweep(runs, out, together=args.together)
    results = read_results(runs, out)
    if not results and signum is None:
        if args.report_only:
            raise UserError(f"{out} has no epoch of these runs yet", code="missing", field="--out")
        raise UserError(
            "every run has diverged in its first epoch: lower config.learning_rate",
            code="not_finite",
            field="config.learning_rate",
        )
    if results:
        text = format_results(results)
        print(f"\n{text}\n")
        write_text(out / "results.txt", text + "\n")
        write_text(out / "results.json", json.dumps(as_json(results), indent=2) + "\n")
        draw_sweep(results, f"{path.stem}: {len(runs)} runs", out / "results.png")
    if signum is None:
        return 0
    print(f"stopped; run the same command again to resume the sweep in {out}")
    return 128 + signum
