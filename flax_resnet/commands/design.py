"""Residual networks within a parameter budget: list, plot, write as a config, race."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_resnet.commands.argument_types import (
    factors,
    integers,
    integers_from,
    odd_integers,
    positive,
)
from flax_resnet.commands.arguments import add_classes_and_image_size, classes_and_shape
from flax_resnet.process.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    shared = argparse.ArgumentParser(add_help=False)
    _add_space(shared)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, act: Any, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name, parents=[shared], help=text, description=text, allow_abbrev=False
        )
        verb.set_defaults(act=act)
        return verb

    def add_rows(verb: argparse.ArgumentParser, default: str) -> None:
        verb.add_argument(
            "--rows", type=integers, default=default, metavar="RANGE", help="(default: %(default)s)"
        )

    add_rows(add("list", _list, "the designs as a table, highest rank first"), "1-15")
    plot = add("plot", _plot, "a figure: parameters against multiply-adds")
    plot.add_argument("output", type=Path, metavar="FILE", help=".png, .svg or .pdf")
    write = add("write", _write, "a config file for one design")
    write.add_argument("row", type=positive, metavar="ROW", help="of the list")
    write.add_argument("output", type=Path, metavar="FILE", help="the config file, .py")
    race = add("race", _race, "short runs of some designs; each round, the better half resumes")
    add_rows(race, "1-8")
    race.add_argument("--epochs", type=positive, default=8, help="of the last round (default: 8)")
    race.add_argument(
        "--train-images", type=positive, metavar="N", help="the first N; a tenth is held out"
    )
    race.add_argument(
        "--out",
        type=Path,
        default="runs/design",
        metavar="DIR",
        help="folder for the runs, standings.txt and winner.py (default: %(default)s)",
    )
    parser.set_defaults(overrides=[])


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-params",
        type=positive,
        default="5e6",
        metavar="N",
        help="parameter budget (default: %(default)s)",
    )
    ranges = parser.add_argument_group("ranges", "such as 1,3,5 or 3-5 or 32-96:8 (in steps of 8)")
    for flag, field, parse, default, words in (
        ("--stages", "num_stages", integers, "3-4", "N, number of stages"),
        ("--blocks", "blocks", integers, "1-4", "B_i, blocks per stage"),
        ("--channels", "first_channels", integers, "32-96:8", "C_1, channels of the first stage"),
        ("--growth", "growths", factors, "2", "channels of a stage over the one before"),
        ("--kernels", "kernel_sizes", odd_integers, "3", "F_i, of the blocks"),
        ("--shortcut-kernels", "shortcut_kernels", odd_integers, "1,3", "K_i, of the shortcuts"),
        ("--pools", "pool_sizes", _pool_sizes, "0", "P, of the average pool; 0: the whole map"),
    ):
        text = f"{words} (default: %(default)s)"
        ranges.add_argument(
            flag, dest=field, type=parse, default=default, metavar="RANGE", help=text
        )
    ranges.add_argument(
        "--mixed-kernels", action="store_true", help="F_i and K_i may differ between stages"
    )
    ranges.add_argument("--block", choices=("basic", "bottleneck"), default="basic")
    ranges.add_argument("--shortcut", choices=("projection", "pad", "none"), default="projection")
    parser.add_argument(
        "--rank-by",
        choices=("multiply-adds", "depth", "params"),
        default="multiply-adds",
        help="highest first (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        default="base",
        metavar="FILE",
        help="recipe for races and written configs (default: the defaults); --config.FIELD=VALUE "
        "changes it",
    )
    add_classes_and_image_size(parser)


def _pool_sizes(text: str) -> tuple[int | None, ...]:
    return tuple(size or None for size in integers_from(0)(text))


@dataclasses.dataclass(frozen=True)
class _Search:
    """The recipe, what the designs are counted for, and those within the budget, ranked."""

    recipe: Any
    num_classes: int
    image_shape: tuple[int, int, int]
    space_size: int
    ranked: Sequence[Any]

    def candidate(self, row: int) -> Any:
        """The design of a row of the list."""
        if row > len(self.ranked):
            raise UserError(f"no row {row}: {len(self.ranked):,} designs fit", code="unknown")
        return self.ranked[row - 1]


def run(args: argparse.Namespace) -> int:
    """Searches the space and runs the subcommand; returns its exit code."""
    from flax_resnet.process.malloc import keep_freed_memory

    keep_freed_memory()  # before JAX starts threads

    from flax_resnet.search.space import Space, explore

    if args.block == "bottleneck" and args.shortcut == "none":
        raise UserError(
            "--shortcut none makes plain nets, which have basic blocks: set --block basic",
            code="conflict",
            field="--shortcut",
        )
    recipe = _recipe(args)
    num_classes, image_shape = classes_and_shape(args, recipe)
    space = Space(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Space)})
    ranked = explore(space, args.max_params, num_classes, image_shape, args.rank_by)
    size = space.size(image_shape)
    return args.act(args, _Search(recipe, num_classes, image_shape, size, ranked))


def _recipe(args: argparse.Namespace) -> Any:
    """The config, in which no override may be of the network, which the search sets."""
    from flax_resnet.config.load import find_config, flat_fields, load_config

    path = find_config(args.config)
    recipe = load_config(path, args.overrides)
    before = flat_fields(load_config(path))
    for field, value in flat_fields(recipe).items():
        if value != before[field] and (field == "model" or field.startswith("design.")):
            raise UserError(
                f"config.{field} is set by the design: narrow the ranges instead (--help)",
                code="conflict",
                field=f"config.{field}",
            )
    return recipe


def _list(args: argparse.Namespace, search: _Search) -> int:
    from flax_resnet.search.published import published_for
    from flax_resnet.search.table import ranked_table

    side = search.image_shape[0]
    print(
        f"{search.space_size:,} designs, {len(search.ranked):,} of them within "
        f"{args.max_params:,} parameters ({side}x{side} images, {search.num_classes} classes)\n"
    )
    published = published_for(search.num_classes, search.image_shape)
    print(ranked_table(search.ranked, args.rows, published))
    return 0


def _plot(args: argparse.Namespace, search: _Search) -> int:
    from flax_resnet.search.plot import draw_designs
    from flax_resnet.search.published import published_for

    published = published_for(search.num_classes, search.image_shape)
    print(draw_designs(search.ranked, args.max_params, args.output, published))
    return 0


def _write(args: argparse.Namespace, search: _Search) -> int:
    if args.output.exists():
        path = str(args.output)
        raise UserError(f"{path} exists; give another name", code="conflict", field=path)
    _write_config(search.candidate(args.row), search.recipe, args.output)
    return 0


def _write_config(candidate: Any, recipe: Any, path: Path) -> None:
    from flax_resnet.search.config import write_config
    from flax_resnet.search.space import describe

    title = f"{describe(candidate.design)}: {candidate.params:,} parameters"
    write_config(recipe, candidate.design, path, title)
    print(f"{title}\nTo train it: python train.py --config {path}")


def _race(args: argparse.Namespace, search: _Search) -> int:
    """Races, prints and writes the standings and the winner's config; 128 + signal if stopped."""
    from flax_resnet.config.load import find_config, load_config
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.files import write_text
    from flax_resnet.process.paths import default_cache_dir
    from flax_resnet.search.race import contenders_config, format_standings, race

    contenders = [(row, search.candidate(row)) for row in dict.fromkeys(args.rows)]
    changes = [f"--config.num_epochs={args.epochs}"]
    if args.train_images is not None:
        changes.append(f"--config.train_images={args.train_images}")
    short = load_config(find_config(args.config), [*args.overrides, *changes])
    config = contenders_config(short, len(contenders), search.num_classes, search.image_shape)
    if config.deterministic:
        from flax_resnet.process.determinism import use_deterministic_kernels

        use_deterministic_kernels()
    keep_compiled(default_cache_dir())
    outcome = race(contenders, config, args.out)
    if outcome.signum is not None:
        print(f"stopped; run the same command again to resume the race in {args.out}")
        return 128 + outcome.signum
    text = format_standings(outcome.standings, config.validation_split)
    print(f"\n{text}\n")
    write_text(args.out / "standings.txt", text + "\n")
    # The full recipe: its own number of epochs, all images.
    _write_config(outcome.standings[0].candidate, search.recipe, args.out / "winner.py")
    return 0
