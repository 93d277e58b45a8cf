"""Which ResNets fit a number of parameters: table, picture, a config for one, a race of a few."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_resnet.commands.arguments import add_classes_and_image_size, classes_and_shape
from flax_resnet.process.errors import UserError
from flax_resnet.search.number_ranges import factors, odd_numbers, whole_number, whole_numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--max-params", default="5e6", metavar="N", help="most parameters (default: %(default)s)"
    )
    space = parser.add_argument_group("ranges", "such as 3-5 or 32-96:8 (in steps of 8) or 1,3,5")
    for flag, default, words in (
        ("--layers", "3-4", "N, residual layers"),
        ("--blocks", "1-4", "B_i, blocks of each layer"),
        ("--channels", "32-96:8", "C_1, channels of the first layer"),
        ("--growth", "2", "channels of a layer over those of the one before"),
        ("--kernels", "3", "F_i, kernel of the blocks"),
        ("--shortcut-kernels", "1,3", "K_i, kernel of the shortcuts"),
        ("--pools", "0", "P, average-pool kernel; 0: the whole map"),
    ):
        space.add_argument(
            flag, default=default, metavar="RANGE", help=f"{words} (default: %(default)s)"
        )
    space.add_argument(
        "--mixed-kernels", action="store_true", help="F_i and K_i may differ from layer to layer"
    )
    space.add_argument("--block", choices=("basic", "bottleneck"), default="basic")
    space.add_argument("--shortcut", choices=("projection", "pad", "none"), default="projection")
    result = parser.add_argument_group("results")
    result.add_argument(
        "--rank-by",
        choices=("multiply-adds", "depth", "params"),
        default="multiply-adds",
        help="the most comes first (default: %(default)s)",
    )
    result.add_argument(
        "--rows", type=int, default=15, metavar="N", help="of the table (default: %(default)s)"
    )
    result.add_argument("--output", metavar="FILE", help="a picture: .png, .svg or .pdf")
    result.add_argument(
        "--write-config",
        nargs=2,
        metavar=("ROW", "FILE"),
        help="a config file for a row, with the recipe of --config",
    )
    _add_race_arguments(parser)
    add_classes_and_image_size(parser)
    parser.set_defaults(overrides=[])


def _add_race_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "race", "short trainings of some designs; each round the better half goes on"
    )
    who = group.add_mutually_exclusive_group()
    who.add_argument("--race", type=int, metavar="K", help="of the first K rows")
    who.add_argument("--race-rows", metavar="RANGE", help="of these rows")
    group.add_argument(
        "--epochs", type=int, default=8, metavar="N", help="of the last round (default: 8)"
    )
    group.add_argument(
        "--train-images", type=int, metavar="N", help="the first N; a tenth is held out"
    )
    group.add_argument(
        "--out",
        default="runs/design",
        metavar="DIR",
        help="where their runs are (default: %(default)s)",
    )
    recipe = parser.add_argument_group("recipe", "of the race and of the config files written")
    recipe.add_argument(
        "--config",
        default="configs/revised.py",
        metavar="FILE",
        help="a config file (default: %(default)s); --config.FIELD=VALUE changes it",
    )
    recipe.add_argument("--dataset", metavar="NAME", help="in place of config.dataset")


def run(args: argparse.Namespace) -> int:
    """Prints the table, and makes what else is asked for; 128 + signal after a stopped race."""
    # Before JAX, which starts threads.
    from flax_resnet.process.malloc import keep_freed_memory

    keep_freed_memory()

    from flax_resnet.config.load import load_config
    from flax_resnet.search.space import CIFAR_CLASSES, CIFAR_SHAPE, KNOWN, TASK_PARAMS, explore
    from flax_resnet.search.table import ranked_table

    if args.dataset is not None:
        args.overrides = [*args.overrides, f"--config.dataset={args.dataset}"]
    recipe = load_config(args.config, args.overrides)
    classes, shape = classes_and_shape(args, recipe)
    max_params = whole_number("--max-params", args.max_params)
    if args.rows < 0:
        raise UserError(f"--rows is {args.rows}: it must be a whole number from 0 on")
    space = _space(args)
    ranked = explore(space, max_params, classes, shape, args.rank_by)
    print(_ranges_in_words(args))
    print(
        f"{space.size(shape):,} designs, {len(ranked):,} of them within {max_params:,} parameters "
        f"({shape[0]} x {shape[1]} images, {classes} classes)\n"
    )
    # Answers to the paper's task, for the same images.
    known = KNOWN if (classes, shape) == (CIFAR_CLASSES, CIFAR_SHAPE) else ()
    known = [answer for answer in known if (answer.params or TASK_PARAMS) <= max_params]
    print(ranked_table(ranked, known, args.rows))
    if args.output is not None:
        from flax_resnet.search.plot import draw_designs

        print(f"\n{draw_designs(ranked, max_params, Path(args.output), known)}")
    if args.write_config is not None:
        _write_row(args.write_config, ranked, recipe)
    rows = _rows_to_race(args)
    return _race(args, _chosen(ranked, rows), recipe, classes, shape) if rows else 0


def _space(args: argparse.Namespace) -> Any:
    """The design_space.Space of the ranges."""
    from flax_resnet.search.space import Space

    if args.block == "bottleneck" and args.shortcut == "none":
        raise UserError("--shortcut is 'none': plain nets have basic blocks")
    pools = whole_numbers("--pools", args.pools, low=0)
    return Space(
        num_layers=whole_numbers("--layers", args.layers),
        blocks=whole_numbers("--blocks", args.blocks),
        first_channels=whole_numbers("--channels", args.channels),
        growths=factors("--growth", args.growth),
        kernel_sizes=odd_numbers("--kernels", args.kernels),
        shortcut_kernels=odd_numbers("--shortcut-kernels", args.shortcut_kernels),
        mixed_kernels=args.mixed_kernels,
        pool_sizes=tuple(side or None for side in pools),
        block=args.block,
        shortcut=args.shortcut,
    )


def _ranges_in_words(args: argparse.Namespace) -> str:
    each = " in each layer" if args.mixed_kernels else ""
    parts = [
        f"N {args.layers}",
        f"B {args.blocks}",
        f"C {args.channels}, times {args.growth} a layer",
        f"F {args.kernels}{each}",
        f"K {args.shortcut_kernels}{each}" if args.shortcut == "projection" else args.shortcut,
        "P whole map" if args.pools == "0" else f"P {args.pools} (0: whole map)",
    ]
    return "; ".join(parts + ([args.block] if args.block != "basic" else []))


def _chosen(ranked: list[Any], rows: Sequence[int]) -> list[tuple[int, Any]]:
    """(row, candidate) of some rows."""
    if max(rows) > len(ranked):
        raise UserError(f"row {max(rows)} does not exist: {len(ranked):,} designs fit")
    return [(row, ranked[row - 1]) for row in dict.fromkeys(rows)]


def _rows_to_race(args: argparse.Namespace) -> Sequence[int]:
    if args.race_rows is not None:
        return whole_numbers("--race-rows", args.race_rows)
    if args.race is not None and args.race < 1:
        raise UserError(f"--race is {args.race}: it must be a whole number from 1 on")
    return range(1, 1 + (args.race or 0))


def _write_row(row_and_path: list[str], ranked: list[Any], recipe: Any) -> None:
    row, path = whole_number("--write-config", row_and_path[0]), Path(row_and_path[1])
    if path.exists():
        raise UserError(f"--write-config {path}: it exists already; give another name")
    ((_, candidate),) = _chosen(ranked, [row])
    _write_config(candidate, recipe, path)


def _write_config(candidate: Any, recipe: Any, path: Path) -> None:
    from flax_resnet.config.load import default_config
    from flax_resnet.search.config import write_config
    from flax_resnet.search.space import describe

    title = f"{describe(candidate.design)}: {candidate.params:,} parameters"
    write_config(recipe, candidate.design, default_config(), path, title)
    print(f"\n{title}; to train it:\n  python train.py --config {path}")


def _race(
    args: argparse.Namespace,
    contenders: list[tuple[int, Any]],
    recipe: Any,
    classes: int,
    shape: tuple[int, int, int],
) -> int:
    """Runs the race, prints and writes the standings, and writes the winner's config."""
    from flax_resnet.config.load import load_config
    from flax_resnet.data.cache import default_cache_dir
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.files import write_text
    from flax_resnet.search.race import contenders_config, format_standings, race

    changes = [f"--config.num_epochs={args.epochs}"]
    if args.train_images is not None:
        changes.append(f"--config.train_images={args.train_images}")
    short = load_config(args.config, [*args.overrides, *changes])
    config = contenders_config(short, len(contenders), classes, shape)
    keep_compiled(default_cache_dir())
    print()
    out = Path(args.out)
    outcome = race(contenders, config, out)
    if outcome.signum is not None:
        print(f"the race is stopped: the same command goes on, from what is saved in {out}")
        return 128 + outcome.signum
    text = format_standings(outcome.standings, config.validation_split)
    print(f"\n{text}")
    write_text(out / "standings.txt", text + "\n")
    # The recipe in full: its own epochs, all images.
    _write_config(outcome.standings[0].candidate, recipe, out / "winner.py")
    return 0
