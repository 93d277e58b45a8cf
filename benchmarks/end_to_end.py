"""Training images a second as train.py itself logs them, in turns with PyTorch.

Each round `train.py` trains two epochs more of the same run (its constant learning rate allows it)
and the figure is the second's of its metrics.jsonl: in the first few steps of a process memory is
used for the first time. Then PyTorch, float32, eager, channels_last, which is warm, takes as many
steps of the same batch size.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.throughput import (
    NUM_CLASSES,
    Case,
    case_config,
    config_file,
    random_chunk,
    torch_call,
)
from flax_resnet.config.build import build_model

STEPS = 20  # an epoch


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("end_to_end", __doc__)
    parser.add_argument("--rounds", type=int, help="default: 7")
    parser.add_argument(
        "--dataset", default=None, metavar="NAME", help="default: random images in a .npz file"
    )
    args = parser.parse_args(argv)
    rounds = args.rounds or (1 if args.quick else 7)
    steps = 2 if args.quick else STEPS
    model, batch_size = ("tiny", 8) if args.quick else ("revised", 128)
    case = Case("torch", "channels_last", "float32", model, batch_size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = args.dataset or str(Path(folder) / "random.npz")
        if args.dataset is None:
            images, labels = random_chunk(1, (steps + 1) * batch_size)
            labels[0, :NUM_CLASSES] = range(NUM_CLASSES)
            np.savez(
                dataset,
                x_train=images[0, :-batch_size],
                y_train=labels[0, :-batch_size],
                x_test=images[0, -batch_size:],
                y_test=labels[0, -batch_size:],
            )
        try:
            torch_steps = torch_call(
                case, build_model(case_config(case), NUM_CLASSES).design, steps
            )
        except ImportError:
            torch_steps = None
        for number in range(1, rounds + 1):
            command = [
                sys.executable, "train.py", "--config", str(config_file(model)),
                f"--config.dataset={dataset}", "--workdir", str(Path(folder) / "run"),
                f"--config.train_images={steps * batch_size}", "--config.test_images=128",
                f"--config.batch_size={batch_size}", f"--config.num_epochs={2 * number}",
                "--config.schedule=constant",
                # Chosen as for the whole of a long run, not for these few steps.
                f"--config.conv={'native' if args.quick else os.environ.get('CONV', 'winograd')}",
            ]  # fmt: skip
            subprocess.run(command, cwd=measure.ROOT, check=True, stdout=subprocess.DEVNULL)
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
            row: dict[str, Any] = {
                "round": number,
                "train_py_images_per_second": json.loads(lines[-1])["images_per_second"],
            }
            if torch_steps is not None:
                if number == 1:
                    torch_steps()
                start = time.perf_counter()
                torch_steps()
                torch_speed = steps * batch_size / (time.perf_counter() - start)
                row["torch_images_per_second"] = torch_speed
                row["ratio"] = row["train_py_images_per_second"] / torch_speed
            rows.append(row)
            print(measure.format_table(rows[-1:]), file=sys.stderr, flush=True)
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    ratio = statistics.median(ratios) if ratios else None
    return measure.report("end_to_end", rows, args.output, median_ratio=ratio)


if __name__ == "__main__":
    main()
