"""Damages the newest checkpoint in every way and loads it: never wrong weights, never a traceback.

A finished run of two checkpoints; in each case one file or folder of the newest is damaged in a
copy of the run. What is loaded must be the checkpoint before it, bit for bit, and said so; with
both damaged there must be an error that says so. Now and then the run is gone on with, and must
end as it did.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from flax_resnet.process.errors import UserError
from flax_resnet.runs.checkpoints import Checkpoints
from flax_resnet.runs.manifest import NAME
from flax_resnet.training.loop import train_and_evaluate
from tests.logs import collected
from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

STEPS = 7  # an epoch
GO_ON_EVERY = 50  # cases


def truncate(path: Path, rng: random.Random) -> None:
    """Cuts the end off."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flip_bit(path: Path, rng: random.Random) -> None:
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def empty(path: Path, _: random.Random) -> None:
    """Leaves a file of no bytes."""
    path.write_bytes(b"")


def delete(path: Path, _: random.Random) -> None:
    """Removes it."""
    path.unlink()


def overwrite(path: Path, rng: random.Random) -> None:
    """As many other bytes."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    truncate,
    flip_bit,
    empty,
    delete,
    overwrite,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if wrong weights were loaded or anything but a UserError was raised."""
    parser = arguments("corruption", __doc__, count=1000)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    tally = Tally(args)
    devices = jax.local_devices()[:1]
    config = trainings.load_tiny_config(num_epochs=2)
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        train_and_evaluate(config, run, devices=devices)
        whole = trainings.everything_saved(run)
        shutil.copytree(run, Path(name) / "older")
        shutil.rmtree(Path(name) / "older/checkpoints" / str(2 * STEPS))
        older = trainings.everything_saved(Path(name) / "older")
        newest = Path("checkpoints") / str(2 * STEPS)
        files = sorted(p.relative_to(run) for p in (run / newest).rglob("*") if p.is_file())
        # Every file in one way first, then every file in every way, then by chance.
        each = [
            (file, DAMAGES[(i + turn) % len(DAMAGES)])
            for turn in range(len(DAMAGES))
            for i, file in enumerate(files)
        ]
        copy = Path(name) / "copy"
        shutil.copytree(run, copy)
        for number in range(args.count):
            if not tally.in_time:
                break
            file, damage = each[number] if number < len(each) else rng.choice(each)
            if damage is not delete and not (run / file).stat().st_size:
                damage = delete
            both = rng.random() < 0.1
            start = time.monotonic()
            damaged = [file]
            damage(copy / file, rng)
            if both:
                other = Path("checkpoints") / str(STEPS) / file.relative_to(newest)
                if (copy / other).exists():
                    damage(copy / other, rng)
                else:  # orbax may name a file by chance
                    other = Path("checkpoints") / str(STEPS) / NAME
                    delete(copy / other, rng)
                damaged.append(other)
            problem = check(copy, whole, older, both)
            if problem is None and not both and number % GO_ON_EVERY == 0:
                train_and_evaluate(config, copy, devices=devices)
                problem = trainings.difference(trainings.everything_saved(copy), whole)
                shutil.rmtree(copy)
                shutil.copytree(run, copy)
            else:  # a check only reads
                for path in damaged:
                    shutil.copy2(run / path, copy / path)
            kind = f"{damage.__name__}{', both checkpoints' if both else ''}"
            tally.add(
                kind, "error" if both else "the one before", time.monotonic() - start,
                problem and f"--seed {args.seed}, case {number}: {file}, {kind}: {problem}",
            )  # fmt: skip
    return tally.finish("corruption", files=len(files))


def check(run: Path, whole: dict[str, Any], older: dict[str, Any], both: bool) -> str | None:
    """What is wrong with how a damaged run is loaded; None: nothing."""
    with (
        collected() as lines,
        Checkpoints(run / "checkpoints", keep_best=False, read_only=True) as checkpoints,
    ):
        try:
            latest = checkpoints.latest
        except UserError as error:
            return None if both and error.code == "corrupt" else f"refused: {error}"
    if both:
        return f"{latest} was taken"
    if not any("is corrupt" in line for line in lines):
        return "nothing was said"
    found = trainings.everything_saved(run)
    expected = older | {"rows": whole["rows"]}
    return trainings.difference(found, expected)


if __name__ == "__main__":
    sys.exit(main())
