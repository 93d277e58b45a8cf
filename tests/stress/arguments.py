"""The arguments that every stress test takes."""

import argparse
from pathlib import Path

from benchmarks.measure import ROOT


def arguments(name: str, description: str | None, count: int) -> argparse.ArgumentParser:
    """--count (default: `count`), --seconds, --seed and --output."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.stress.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--count", type=int, default=count, metavar="N", help="cases (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3600.0, metavar="S",
        help="end after this time, however many cases are done (default: %(default).0f)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="each seed makes other cases (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=ROOT / "build" / "stress",
        help=f"folder for {name}.json (default: build/stress)",
    )  # fmt: skip
    return parser
