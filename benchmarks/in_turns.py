"""A recipe trained by this program and in PyTorch, an epoch each in turns on the same machine.

While one process trains, the other is stopped (SIGSTOP), so that load on the machine and its drift
affect both alike. An epoch's seconds end with its line in metrics.jsonl: the evaluation counts, and
in the first epoch the start and the compilation. Ctrl-Z pauses all, and its time does not count.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure

POLL_SECONDS = 0.05
COMMANDS = {
    "flax_resnet": ["train.py"],
    "pytorch": ["-m", "benchmarks.torch_recipe"],
}


class Trainer:
    """A training in a process of its own, which stands still but for one epoch at a time."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.metrics = folder / name / "metrics.jsonl"
        command = [sys.executable, *COMMANDS[name], *arguments, "--workdir", str(folder / name)]
        with open(folder / f"{name}.log", "w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=measure.ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-Z and `fg` are for this process
            )
        self.process.send_signal(signal.SIGSTOP)
        self.seconds: list[float] = []

    def rows(self) -> list[dict[str, Any]]:
        """Of the epochs that have ended."""
        text = self.metrics.read_text() if self.metrics.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def train_epoch(self) -> bool:
        """Lets an epoch pass; False: the training has ended instead."""
        epochs, seconds, last = len(self.seconds) + 1, 0.0, time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        while len(self.rows()) < epochs and self.process.poll() is None:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            seconds += min(now - last, 1)  # longer: this process was stopped, and so was the other
            last = now
        self.process.send_signal(signal.SIGSTOP)
        if len(self.rows()) < epochs:
            if self.process.returncode:
                sys.exit(f"{self.process.args} failed; see the log in {self.metrics.parent.parent}")
            return False
        self.seconds.append(round(seconds, 2))
        return True


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs both trainings to their ends; returns what it writes."""
    parser = measure.arguments("in_turns", __doc__)
    parser.add_argument("--config", default="airbench94", help="recipe (default: %(default)s)")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the two runs")
    args, overrides = parser.parse_known_args(argv)
    if args.workdir.exists():
        parser.error(f"{args.workdir} exists: choose another --workdir")
    args.workdir.mkdir(parents=True)
    arguments = ["--config", args.config, *overrides]
    trainers = {name: Trainer(name, arguments, args.workdir.absolute()) for name in COMMANDS}

    with contextlib.ExitStack() as stack:
        for trainer in trainers.values():
            stack.callback(trainer.process.kill)
        turns = list(trainers.values())
        while turns:
            trainer = turns.pop(0)
            with stopped_with_us(trainer.process):
                if trainer.train_epoch():
                    turns.append(trainer)
            print(trainer.metrics.parent.name, trainer.seconds, file=sys.stderr, flush=True)
    ours, theirs = (trainer.seconds for trainer in trainers.values())
    rows = [
        {
            "program": name,
            "seconds": trainer.seconds,
            "total_seconds": sum(trainer.seconds),
            "test_accuracy": [row["test_accuracy"] for row in trainer.rows()],
            "test_views_accuracy": trainer.rows()[-1].get("test_views_accuracy"),
        }
        for name, trainer in trainers.items()
    ]
    return measure.report(
        "in_turns",
        rows,
        args.output,
        arguments=" ".join(arguments),
        speed_over_pytorch=sum(theirs) / sum(ours),
        speed_over_pytorch_in_the_median_epoch=statistics.median(
            b / a for a, b in zip(ours, theirs, strict=True)
        ),
    )


@contextlib.contextmanager
def stopped_with_us(process: subprocess.Popen) -> Iterator[None]:
    """Within it, Ctrl-Z stops `process` and this one, and `fg` lets both go on."""

    def stop(*_: Any) -> None:
        process.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


if __name__ == "__main__":
    main()
