"""Kills runs at random moments and compares how they end with one that was left alone.

Each run is started again until it is finished, and killed (SIGKILL) at a random moment of most
starts: while it loads, trains, evaluates, writes a checkpoint or a line. Parameters, statistics,
optimizer state and metrics must be those of the run that was left alone, bit for bit.
"""

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

EPOCHS = 30
DISPATCHES = ((1, 2), (3, 3))  # (steps_per_dispatch, checkpoint_every_steps) in turns


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a run ended otherwise."""
    parser = arguments("kills", __doc__, count=100)
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help="of a run (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    tally = Tally(args)
    kills = runs = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = []
        start_up = None
        while kills < args.count and tally.in_time:
            if runs < len(DISPATCHES):
                changes = settings(args.epochs, *DISPATCHES[runs])
                whole = folder / f"whole{runs}"
                process = trainings.start(whole, folder / "cache", **changes)
                output, _ = process.communicate()
                assert process.returncode == 0, output
                expected.append((changes, trainings.everything_saved(whole)))
            changes, whole_run = expected[runs % len(DISPATCHES)]
            if start_up is None:
                start_up = seconds_to_first_step(folder / "timed", folder / "cache", changes)
            workdir = folder / f"run{runs}"
            runs += 1
            begin = time.monotonic()
            kills += killed_until_finished(
                workdir, folder / "cache", changes, rng, tally, args.count - kills, start_up
            )
            problem = trainings.difference(trainings.everything_saved(workdir), whole_run)
            tally.add(
                "finished runs", "equal", time.monotonic() - begin,
                problem and f"--seed {args.seed}, run {runs}: {problem}",
            )  # fmt: skip
    return tally.finish("kills", kills=kills, runs=runs, epochs_a_run=args.epochs)


def seconds_to_first_step(workdir: Path, cache: Path, changes: dict[str, Any]) -> float:
    """How long a start takes that finds its programs compiled."""
    start = time.monotonic()
    process = trainings.start(workdir, cache, **changes)
    until_compiled(process)
    seconds = time.monotonic() - start
    process.kill()
    process.communicate()
    return seconds


def until_compiled(process: subprocess.Popen[str]) -> str:
    """What a process prints until it has compiled its steps, or until it ends."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("compiled"):
            break
    return "".join(lines)


def settings(epochs: int, steps_per_dispatch: int, checkpoint_every_steps: int) -> dict[str, Any]:
    """The fields of a run."""
    return {
        "num_epochs": epochs,
        "steps_per_dispatch": steps_per_dispatch,
        "checkpoint_every_steps": checkpoint_every_steps,
    }


def killed_until_finished(
    workdir: Path,
    cache: Path,
    changes: dict[str, Any],
    rng: random.Random,
    tally: Tally,
    most_kills: int,
    start_up: float,
) -> int:
    """Starts a run until it is finished, killing it on the way; returns how often."""
    kills = 0
    while True:
        begin = time.monotonic()
        process = trainings.start(workdir, cache, **changes)
        output = ""
        if kills < most_kills and tally.in_time:
            moment = rng.random() * start_up  # while it starts, or in 1.5 s of training
            if rng.random() < 0.75:
                output = until_compiled(process)
                moment = time.monotonic() - begin + rng.uniform(0.0, 1.5)
            while time.monotonic() - begin < moment and process.poll() is None:
                time.sleep(0.005)
            process.kill()
        output += process.communicate()[0]
        if process.returncode == 0:
            return kills
        if process.returncode != -signal.SIGKILL:
            tally.add("kills", "", time.monotonic() - begin, f"exit {process.returncode}: {output}")
            return kills
        kills += 1
        tally.add("kills", where_killed(workdir, output), time.monotonic() - begin)


def where_killed(workdir: Path, output: str) -> str:
    """What the process was doing, as its files and lines tell."""
    if any((workdir / "checkpoints").glob("writing-*")):
        return "writing a checkpoint"
    return "training" if re.search(r"^compiled", output, re.MULTILINE) else "starting"


if __name__ == "__main__":
    sys.exit(main())
