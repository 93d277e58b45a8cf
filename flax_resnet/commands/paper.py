"""The paper's figures, tables and claims reproduced, as one report."""

import argparse
from pathlib import Path
from typing import Any

from flax_resnet.commands.arguments import positive
from flax_resnet.paper import SECTION_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTION_NAMES,
        metavar="NAME",
        help=f"only these sections: {', '.join(SECTION_NAMES)} (default: all)",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="train the first N epochs of each recipe; a larger N resumes (default: all)",
    )
    parser.add_argument(
        "--train-images", type=positive, metavar="N", help="use only the first N (default: all)"
    )
    parser.add_argument(
        "--test-images", type=positive, metavar="N", help="use only the first N (default: all)"
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        default=1,
        metavar="N",
        help="train the paper's own run with seeds 0 to N - 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--data-note",
        metavar="TEXT",
        help="a description of the images, if the program cannot identify them",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing: write the report from existing runs",
    )
    parser.add_argument(
        "--out",
        default="runs/paper",
        metavar="DIR",
        help="folder for the report and its runs (default: %(default)s)",
    )
    parser.set_defaults(overrides=[])
    parser.epilog = "--config.FIELD=VALUE changes a field of every run, as in --config.dataset=FILE"


def run(args: argparse.Namespace) -> int:
    """Trains missing runs and writes the report; returns 128 + signal if stopped."""
    from flax_resnet.process.malloc import keep_freed_memory

    keep_freed_memory()  # before JAX starts threads

    from flax_resnet.paper.plan import planned_runs
    from flax_resnet.paper.report import RUNS, write_report

    out = Path(args.out)
    names = [name for name in SECTION_NAMES if name in (args.only or SECTION_NAMES)]
    configs = _load_configs(args, planned_runs(names, args.seeds))
    if any(config.deterministic for _, config in configs):
        from flax_resnet.process.determinism import use_deterministic_kernels

        use_deterministic_kernels()
    signum = None if args.report_only else _train(args, configs, out / RUNS)
    for path in write_report(out, names, args.seeds, args.epochs, args.data_note):
        print(path)
    if signum is None:
        return 0
    print("stopped; the report covers what is trained; run the same command again to resume")
    return 128 + signum


def _load_configs(args: argparse.Namespace, runs: list[Any]) -> list[tuple[Any, Any]]:
    """Every PlannedRun with its ConfigDict."""
    from flax_resnet.paper.plan import load_run_config

    configs = []
    for planned in runs:
        config = load_run_config(planned, args.overrides)
        # Set directly: as overrides they are refused in favor of these flags.
        for field in ("train_images", "test_images"):
            if getattr(args, field) is not None:
                config[field] = getattr(args, field)
        if config.validation_split and config.train_images is not None:
            config.validation_split = min(config.validation_split, config.train_images // 4)
        configs.append((planned, config))
    return configs


def _train(args: argparse.Namespace, configs: list[tuple[Any, Any]], folder: Path) -> int | None:
    """Trains, then what the results call for; returns the signal that stopped it, if any."""
    from flax_resnet.paper.calibration import note_calibration
    from flax_resnet.paper.history import read_histories
    from flax_resnet.paper.plan import seed_run
    from flax_resnet.paper.rates import tuned_runs
    from flax_resnet.paper.training import train_runs
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.paths import default_cache_dir

    keep_compiled(default_cache_dir())
    signum = train_runs(configs, folder, args.epochs)
    if signum is not None:
        return signum
    own = folder / seed_run(0).name
    if own.name in {run.name for run, _ in configs}:
        note_calibration(own)
    tuned = tuned_runs(read_histories(folder, [run for run, _ in configs]))
    return train_runs(_load_configs(args, tuned), folder, args.epochs)
