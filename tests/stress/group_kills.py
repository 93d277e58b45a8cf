"""Kills one of two processes that train a run together, at random moments.

The other one must end within a minute, with one line that says so. Started again, the two resume;
when the run is finished, it must be the one that was left alone, bit for bit.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_resnet.process.distributed import ENDED
from tests.groups import outputs, start_group
from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

KILLS_A_RUN = 4
CHANGES = {"num_epochs": 12, "checkpoint_every_steps": 3, "train_images": 196}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a process ended otherwise than it should."""
    args = arguments("group_kills", __doc__, count=20).parse_args(argv)
    rng, tally, kills, runs = random.Random(args.seed), Tally(args), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.monotonic()
        assert finish(folder / "whole") == [0, 0]
        seconds = time.monotonic() - begin
        expected = trainings.everything_saved(folder / "whole")
        while kills < args.count and tally.in_time:
            workdir = folder / f"run{runs}"
            runs += 1
            for _ in range(min(KILLS_A_RUN, args.count - kills)):
                victim = rng.randrange(2)
                begin = time.monotonic()
                problem = kill_one(workdir, victim, rng.random() * seconds)
                kills += 1
                failure = problem and f"--seed {args.seed}, kill {kills}: {problem}"
                tally.add(f"process {victim}", "ended", time.monotonic() - begin, failure)
            begin = time.monotonic()
            codes = finish(workdir)
            problem = f"exit codes {codes}" if any(codes) else None
            problem = problem or trainings.difference(trainings.everything_saved(workdir), expected)
            failure = problem and f"--seed {args.seed}, run {runs - 1}: {problem}"
            tally.add("finished runs", "equal", time.monotonic() - begin, failure)
    return tally.finish("group_kills", kills=kills, runs=runs)


def start(workdir: Path) -> list[subprocess.Popen[str]]:
    """The two processes, of two devices each."""
    program = ["train.py", "--config", "quickstart", "--workdir", str(workdir)]
    changes: dict[str, Any] = CHANGES
    return start_group([*program, *trainings.overrides(**changes)], 2, 2)


def finish(workdir: Path) -> list[int | None]:
    """Trains to the end; returns the exit codes."""
    group = start(workdir)
    outputs(group)
    return [process.returncode for process in group]


def kill_one(workdir: Path, victim: int, moment: float) -> str | None:
    """Kills a process so many seconds after both have met; returns what the other does wrong."""
    group = start(workdir)
    for process in group:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("process "))
    end = time.monotonic() + moment
    while time.monotonic() < end and all(process.poll() is None for process in group):
        time.sleep(0.01)
    group[victim].kill()
    killed = time.monotonic()
    other = group[1 - victim]
    ((_, error),) = outputs([other])
    seconds = time.monotonic() - killed
    group[victim].communicate()
    if other.returncode == 0 or group[victim].returncode == 0:
        return None  # the run was finished
    if seconds > 60:
        return f"the other took {seconds:.0f} s to end"
    if other.returncode != 2 or error.count("\n") != 1 or not error.startswith(f"error: {ENDED}"):
        return f"exit code {other.returncode}, {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
