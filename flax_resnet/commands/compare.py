"""Runs in one table: what differs in their recipes, and how good they are."""

import argparse
import json
from typing import Any

from flax_resnet.commands.arguments import add_run, add_table_format
from flax_resnet.process.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_run(parser, several=True)
    parser.add_argument(
        "--mcnemar",
        action="store_true",
        help="test whether chance explains how the first run and each other differ, image by image",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where tfds keeps its sets, if moved")
    add_table_format(parser, "a JSON object with all values")


def run(args: argparse.Namespace) -> int:
    """Prints the table, and what the tests say."""
    from flax_resnet.report.table import csv_text
    from flax_resnet.search.compare import compare_runs
    from flax_resnet.search.sweep import as_json, format_results

    results = compare_runs(args.workdir)
    tests = _mcnemar(args) if args.mcnemar else []
    if args.json:
        print(json.dumps({"recipes": as_json(results), "mcnemar": tests}))
        return 0
    if args.csv:
        print(csv_text(as_json(results)))
        if tests:
            print()  # another table
            print(csv_text(tests))
        return 0
    print(format_results(results))
    for test in tests:
        first, second = test["runs"]
        print(
            f"{test['only_first']:,} images only {first} has right, {test['only_second']:,} only "
            f"{second}: p = {test['p']:.2g} (McNemar's exact test)"
        )
    return 0


def _mcnemar(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The first run against each other."""
    from flax_resnet.data.streaming import same_images
    from flax_resnet.judging.judge import judge
    from flax_resnet.judging.scores import mcnemar
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.paths import default_cache_dir

    keep_compiled(default_cache_dir())
    first, *others = (
        judge(workdir, checkpoint=args.checkpoint, data_dir=args.data_dir, views="none")
        for workdir in args.workdir
    )
    tests = []
    for other in others:
        runs = [str(first.workdir), str(other.workdir)]
        if not same_images(first.images, other.images):
            text = f"{' and '.join(runs)} were tested on other images: their answers do not compare"
            raise UserError(text, code="conflict", field="--workdir")
        only_first, only_second, p = mcnemar(first.scores, other.scores)
        tests.append({"runs": runs, "only_first": only_first, "only_second": only_second, "p": p})
    return tests
