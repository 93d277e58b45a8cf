"""What the benchmarks share: interleaved timing, the machine's description, tables, JSON files."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flax_resnet.process.machine import PACKAGES, machine
from flax_resnet.report.table import Table

ROOT = Path(__file__).parent.parent
K = TypeVar("K")


def arguments(name: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=ROOT / "build" / "benchmarks",
        help=f"folder for {name}.json (default: build/benchmarks)",
    )  # fmt: skip
    return parser


def interleave(
    variants: Mapping[K, Callable[[], Any]], rounds: int, warm_up: int = 1
) -> dict[K, list[float]]:
    """Seconds of each call, a call of every variant a round: load on the machine hits all alike."""
    seconds: dict[K, list[float]] = {name: [] for name in variants}
    for number in range(-warm_up, rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def report(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    output: Path,
    kind: str = "benchmark",
    **more: Any,
) -> dict[str, Any]:
    """Prints the rows as a table, writes them with the machine's description as JSON.

    Args:
      name: of the file, without .json.
      rows: with the same keys each.
      output: folder of the file.
      kind: the key under which the file holds `name`.
      **more: single figures, printed below the table.
    """
    result = write(name, rows, output, kind, **more)
    print(format_table(rows))
    for key, value in more.items():
        print(f"{key.replace('_', ' ')}: {_format(value)}")
    print(f"written: {output / name}.json", flush=True)
    return result


def write(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    output: Path,
    kind: str = "benchmark",
    **more: Any,
) -> dict[str, Any]:
    """The file of `report` alone; a long benchmark keeps what it has so far by it."""
    result = {kind: name, "machine": machine((*PACKAGES, "torch")), **more, "rows": list(rows)}
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns as in the first row; numbers to the right."""
    keys = list(rows[0])
    numbers = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in keys]
    return Table(
        [key.replace("_", " ") for key in keys],
        [[_format(row.get(key)) for key in keys] for row in rows],
        "".join("r" if number else "l" for number in numbers),
    ).text()


def _format(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"{len(value):,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
