"""What trained runs are worth on their test images, or on others."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from flax_resnet.commands.arguments import JUDGING
from flax_resnet.judging.figures import class_table, confusions, corruption_table, figures_table
from flax_resnet.judging.judge import Judged, judge
from flax_resnet.judging.sheets import write_sheets
from flax_resnet.plots.curves import distinguishing_names
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.files import make_folder
from flax_resnet.process.paths import default_cache_dir
from flax_resnet.report.table import csv_text


def run(args: argparse.Namespace) -> int:
    """Prints a line per run: loss, accuracy and the number of images; more if asked."""
    keep_compiled(default_cache_dir())
    several = len(args.workdir) > 1
    asked = {name: getattr(args, name) for name in JUDGING}
    names = [""] * len(args.workdir)
    if several and args.sheets:
        names = distinguishing_names([Path(workdir) for workdir in args.workdir])
    rows = []
    for workdir, name in zip(args.workdir, names, strict=True):
        judged = judge(workdir, **asked)
        figures = ({"run": workdir} if several else {}) | _as_json(judged)
        if args.json:
            print(json.dumps(figures))
        elif args.csv:
            rows.append(figures)
        else:
            _print(judged, f"{workdir}, " if several else "", args.details)
        if args.sheets:
            folder = Path(args.sheets) / name
            make_folder(folder, "--sheets")
            for path in write_sheets(judged, folder):
                print(path, file=sys.stderr if args.json or args.csv else sys.stdout)
    if rows:
        print(csv_text(rows))
    return 0


def _as_json(judged: Judged) -> dict[str, Any]:
    figures = {"step": judged.model.step} | judged.scores.as_json(judged.split)
    for scores in judged.views.values():
        name = f"{judged.split}_views"
        figures |= {f"{name}_loss": scores.loss, f"{name}_accuracy": scores.accuracy}
    return figures | ({"corruptions": dict(judged.corrupted)} if judged.corrupted else {})


def _print(judged: Judged, prefix: str, details: bool) -> None:
    scores, split = judged.scores, judged.split
    text = f"{split} loss {scores.loss:.4f}, accuracy {scores.accuracy:.2%}"
    for views, viewed in judged.views.items():
        text += f" ({viewed.accuracy:.2%} with {views} views)"
    print(f"{prefix}step {judged.model.step}: {text} of {len(scores.labels):,} images")
    if details:
        print(f"\n{figures_table([judged], ['']).text().lstrip()}")
        print(f"\n{class_table(scores).text()}\n\nmost often confused: {confusions(scores, 5)}")
    if judged.corrupted:
        print(f"\n{corruption_table(judged.corrupted).text()}")
