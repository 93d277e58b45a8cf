"""Counts of a stress test's cases, and its report."""

import argparse
import dataclasses
import statistics
import time
from collections import Counter, defaultdict
from typing import Any

from benchmarks import measure

PRINTED_FAILURES = 20


@dataclasses.dataclass
class Tally:
    """Outcomes of cases, the time of each, and what failed.

    Attributes:
      args: of the stress test, from arguments.py.
      failures: of each case that failed, how to make it again and what went wrong.
    """

    args: argparse.Namespace
    failures: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @property
    def cases(self) -> int:
        """How many cases are counted."""
        return sum(len(seconds) for seconds in self._seconds.values())

    @property
    def in_time(self) -> bool:
        """Whether --seconds are not over yet."""
        return time.monotonic() - self._start < self.args.seconds

    def add(self, kind: str, outcome: str, seconds: float, failure: str | None = None) -> None:
        """Counts a case; `failure` says how to make it again and what went wrong."""
        self._outcomes[kind]["failed" if failure else outcome] += 1
        self._seconds[kind].append(seconds)
        if failure:
            self.failures.append(failure)

    def finish(self, name: str, **more: Any) -> int:
        """Prints the table and the failures, writes the JSON file; returns the exit code."""
        names = sorted({name for counts in self._outcomes.values() for name in counts} - {"failed"})
        rows = [
            {"cases": kind, "count": len(self._seconds[kind])}
            | {name: counts[name] for name in names}
            | {
                "failed": counts["failed"],
                "median_ms": 1000 * statistics.median(self._seconds[kind]),
                "slowest_ms": 1000 * max(self._seconds[kind]),
            }
            for kind, counts in sorted(self._outcomes.items())
        ]
        seconds = time.monotonic() - self._start
        more |= {"count": self.cases, "seed": self.args.seed, "seconds": seconds}
        measure.report(name, rows, self.args.output, kind="stress", **more, failed=self.failures[:])
        for failure in self.failures[:PRINTED_FAILURES]:
            print(f"\nFAILED: {failure}")
        return 1 if self.failures or not self.cases else 0
