"""Sends runs signals, singly and in storms, at random moments, with outputs of every kind.

Each run is started again until it is finished. Its terminal may be stopped, the reader of its pipe
gone or asleep, its disk full. Whatever happens, a process ends with its signal's exit code or with
0, writes no traceback, keeps what it said it saved, and the finished run's parameters, statistics,
optimizer state and metrics are, bit for bit, those of a run that was left alone.
"""

import contextlib
import os
import pty
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

EPOCHS = 12
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTPUTS = ("terminal", "stopped terminal", "pipe", "dead pipe", "blocked pipe", "file", "full disk")
PATIENCE = 120  # seconds that a process may take to end after its last signal
SIGNALED_STARTS = 5  # of a run; then it is left alone


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a process ended otherwise than it should."""
    parser = arguments("signals", __doc__, count=500)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    tally = Tally(args)
    signaled = runs = 0
    changes: dict[str, Any] = {"num_epochs": EPOCHS, "checkpoint_every_steps": 5}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = trainings.start(folder / "whole", folder / "cache", **changes)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        expected = trainings.everything_saved(folder / "whole")
        start_up = seconds_to_first_step(folder, changes)
        while signaled < args.count and tally.in_time:
            workdir = folder / f"run{runs}"
            runs += 1
            begin = time.monotonic()
            for _ in range(SIGNALED_STARTS):
                if signaled == args.count or not tally.in_time:
                    break
                signaled += 1
                if signaled_start(workdir, folder, changes, rng, tally, start_up):
                    break
            process = trainings.start(workdir, folder / "cache", **changes)
            output, _ = process.communicate()
            problem = f"exit {process.returncode}: {output}" if process.returncode else None
            problem = problem or trainings.difference(trainings.everything_saved(workdir), expected)
            tally.add(
                "finished runs", "equal", time.monotonic() - begin,
                problem and f"--seed {args.seed}, run {runs - 1}: {problem}",
            )  # fmt: skip
    return tally.finish("signals", signaled=signaled, runs=runs, epochs_a_run=EPOCHS)


def seconds_to_first_step(folder: Path, changes: dict[str, Any]) -> float:
    """How long a start takes that finds its programs compiled."""
    start = time.monotonic()
    with trainings.start(folder / "timed", folder / "cache", **changes) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("compiled"))
        process.kill()
    return time.monotonic() - start


def signaled_start(
    workdir: Path,
    folder: Path,
    changes: dict[str, Any],
    rng: random.Random,
    tally: Tally,
    start_up: float,
) -> bool:
    """Starts a run and sends it signals; returns whether it finished nevertheless."""
    kind = rng.choice(OUTPUTS)
    moment = rng.random() * start_up if rng.random() < 0.25 else start_up + rng.uniform(-0.3, 2.0)
    storm = [rng.choice(SIGNALS) for _ in range(1 if rng.random() < 0.5 else rng.randint(2, 20))]
    pause = rng.choice((0.0, 0.001, 0.05))
    log = folder / "output.txt"
    begin = time.monotonic()
    with opened(kind, log) as end:
        process = trainings.start(workdir, folder / "cache", output=end, **changes)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        for signum in storm:
            process.send_signal(signum)
            time.sleep(pause)
        # In short waits: a while in which the whole machine stands still costs only one of them.
        code: int | None = None
        for _ in range(PATIENCE):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(1)
                break
        else:
            process.kill()
            process.wait()
    text = log.read_text() if kind in ("file", "pipe") else ""
    problem = wrong(code, storm, text, workdir)
    described = f"{kind}, {[s.name for s in storm]} every {pause} s after {moment:.2f} s"
    tally.add(
        kind, "finished" if code == 0 else "stopped", time.monotonic() - begin,
        problem and f"{described}: {problem}\n{text}",
    )  # fmt: skip
    return code == 0


def wrong(code: int | None, storm: list[signal.Signals], text: str, workdir: Path) -> str | None:
    """What a process did that it must not; None: nothing."""
    if code is None:
        return f"still running {PATIENCE} s later"
    # A signal before Python has set its handlers ends the process as the system does.
    if code not in {0, *(128 + s for s in storm), *(-s for s in storm)}:
        return f"exit code {code}"
    if "Traceback" in text or "Error" in text:
        return "a traceback"
    if code > 0 and "saving, then stopping" in text and storm.count(signal.SIGINT) < 2:
        saved = re.search(r"saved at step (\d+)", text)
        if not saved or not list((workdir / "checkpoints").glob(f"{saved[1]}*")):
            return "what it announced to save is not there"
    return None


@contextlib.contextmanager
def opened(kind: str, log: Path) -> Iterator[int]:
    """A descriptor to write to; what arrives at a file or a pipe is in `log` afterwards."""
    others: list[int] = []
    reader = None
    if kind == "full disk":
        end = os.open("/dev/full", os.O_WRONLY)
    elif kind in ("terminal", "stopped terminal"):
        ours, end = pty.openpty()
        others.append(ours)
        if kind == "terminal":
            reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
    elif kind == "file":
        end = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    else:
        ours, end = os.pipe()
        if kind == "dead pipe":
            os.close(ours)
        else:
            others.append(ours)
        if kind == "pipe":
            with open(log, "wb") as file:
                reader = subprocess.Popen(["cat"], stdin=ours, stdout=file)
    try:
        if kind in ("blocked pipe", "stopped terminal"):
            fill(end)
        yield end
    finally:
        os.close(end)
        if reader is not None:
            if kind == "terminal":
                reader.kill()
            reader.wait()
        for descriptor in others:
            os.close(descriptor)


def fill(descriptor: int) -> None:
    """Writes until nothing more fits."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b".\n" * 100)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b".")
    os.set_blocking(descriptor, True)


if __name__ == "__main__":
    sys.exit(main())
