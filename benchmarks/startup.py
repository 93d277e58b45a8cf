"""Seconds from the command to the first finished training step, cold and warm.

`train.py` on digits with one step an epoch, whose line is out once the step and the evaluation of
one image are done. Cold: nothing decoded, nothing compiled before. Warm: the same command again,
in a new workdir. Bare: a program that imports JAX, Flax and optax, loads the same compiled step
and takes it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure

BARE = """
import sys
import jax, flax, optax
import numpy as np
from flax_resnet.config.build import build_model, build_optimizer, build_train_step
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.config.load import load_config
from flax_resnet.process.paths import default_cache_dir
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, init_state
print("imported", flush=True)
keep_compiled(default_cache_dir())
config = load_config("configs/quickstart.py", sys.argv[1:])
parallel = DataParallel(devices=jax.devices()[:1])
batch = config.batch_size
images = np.zeros((1, batch, 32, 32, 3), np.uint8)
chunk = parallel.place(images, np.zeros((1, batch), np.int32))
steps = parallel.compile_train(build_train_step(config, 10, 1))
state = init_state(build_model(config, 10), build_optimizer(config), (32, 32, 3), 0)
state, sums = parallel.replicate((state, MetricSums.zeros()))
steps.compile_for(state, sums, chunk)
print("compiled", flush=True)
jax.block_until_ready(steps(state, sums, chunk))
print("epoch 1", flush=True)
"""

# The lines of a training that end a phase, by their first words.
PHASES = {"imports and data": "1 x", "compilation": "compiled", "first step": "epoch 1"}
BARE_PHASES = {"imports and data": "imported", "compilation": "compiled", "first step": "epoch 1"}


def fields(quick: bool) -> list[str]:
    """One step an epoch of the revised network (quick: of a narrow one), one test image."""
    batch_size = 16 if quick else 64
    narrow = ["--config.design.stage_channels=(4,8,8,8)"] if quick else []
    return narrow + [
        f"--config.batch_size={batch_size}",
        f"--config.train_images={batch_size}",
        "--config.test_images=1",
        "--config.num_epochs=1",
        "--config.conv=native",
    ]


def phases(command: list[str], ends: dict[str, str], cache: Path) -> dict[str, float]:
    """Seconds of each phase of a command, and their sum up to the last."""
    env = os.environ | {"FLAX_RESNET_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = last = time.perf_counter()
    found: dict[str, float] = {}
    with subprocess.Popen(
        command, cwd=measure.ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            for phase, words in ends.items():
                if line.startswith(words):
                    now = time.perf_counter()
                    found[phase], last = now - last, now
    if process.returncode or len(found) < len(ends):
        raise RuntimeError(f"{command} did not run as expected: {found}")
    return found | {"total": last - start}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("startup", __doc__)
    parser.add_argument("--rounds", type=int, help="default: 5")
    args = parser.parse_args(argv)
    rounds = args.rounds or (1 if args.quick else 5)
    settings = fields(args.quick)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"

        def train(workdir: str) -> dict[str, float]:
            command = [sys.executable, "train.py", "--config", "configs/quickstart.py"]
            command += ["--workdir", str(Path(folder) / workdir), *settings]
            return phases(command, PHASES, cache)

        runs: dict[str, list[dict[str, float]]] = {"train.py, cold": [train("cold")]}
        runs |= {"train.py, warm": [], "bare, warm": []}
        bare = [sys.executable, "-c", BARE, *settings]
        phases(bare, BARE_PHASES, cache)
        for number in range(rounds):
            runs["train.py, warm"].append(train(f"warm{number}"))
            runs["bare, warm"].append(phases(bare, BARE_PHASES, cache))
    rows = [
        {"start": name}
        | {f"{phase}_s": statistics.median(run[phase] for run in some) for phase in some[0]}
        for name, some in runs.items()
    ]
    totals = {name: [run["total"] for run in some] for name, some in runs.items()}
    ratio = measure.median_ratio(totals["train.py, warm"], totals["bare, warm"])
    return measure.report("startup", rows, args.output, warm_over_bare=ratio, rounds=rounds)


if __name__ == "__main__":
    main()
