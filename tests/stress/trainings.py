"""A run small enough to be killed a hundred times, as a command and as a config."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import ROOT
from flax_resnet.config.build import abstract_checkpoint
from flax_resnet.config.load import from_json, load_config, to_json
from flax_resnet.runs.checkpoints import Checkpoints, Saved
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_metrics

CONFIG_FILE = ROOT / "configs/quickstart.py"
CLOCK = ("seconds", "images_per_second")  # what differs between two runs of the same numbers


def overrides(**changes: object) -> list[str]:
    """Two narrow layers on 200 digits: 7 steps an epoch, the last a short batch."""
    fields = {
        "design.stage_sizes": (1, 1),
        "design.stage_channels": (4, 8),
        "design.kernel_sizes": (3, 3),
        "design.shortcut_kernels": (1, 1),
        "train_images": 200,
        "test_images": 90,
        "batch_size": 32,
        "schedule": "constant",
        "num_epochs": 3,
    } | changes
    return [f"--config.{field}={value}" for field, value in fields.items()]


def start(
    workdir: Path, cache: Path, output: int = subprocess.PIPE, **changes: object
) -> subprocess.Popen[str]:
    """train.py on one CPU device, in a process of its own; stdout and stderr go to `output`."""
    environment = os.environ | {"FLAX_RESNET_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
        environment.pop(name, None)
    command = [sys.executable, "train.py", "--config", str(CONFIG_FILE), "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, *overrides(**changes)],
        cwd=ROOT, env=environment, text=True, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip


def load_tiny_config(**changes: object) -> ConfigDict:
    """The same as a config."""
    return load_config(CONFIG_FILE, overrides(**changes))


def everything_saved(workdir: Path) -> dict[str, Any]:
    """Every array of a run's last checkpoint by its path; its metrics without timings."""
    run = RunFolder(workdir)
    data = run.data_info()
    abstract = _abstract(to_json(run.config()), len(data.class_names), data.image_shape)
    checkpoints = Checkpoints(run.checkpoints, keep_best=False, read_only=True)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = checkpoints.restore(Saved(*abstract, seconds=0.0, evaluated=True), device)
    checkpoints.close()
    leaves = jax.tree_util.tree_flatten_with_path((saved.state, saved.sums))[0]
    found: dict[str, Any] = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    found["evaluated"] = saved.evaluated
    found["rows"] = [without_clock(row) for row in read_metrics(run.metrics_file)]
    return found


@functools.cache
def _abstract(config: str, num_classes: int, image_shape: tuple[int, int, int]) -> Any:
    return abstract_checkpoint(from_json(config), num_classes, image_shape)


def without_clock(row: Row) -> Row:
    """A record without its timings."""
    return {field: value for field, value in row.items() if field not in CLOCK}


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """The first thing that is not the same, bit for bit; None: all is."""
    for name in expected.keys() | found.keys():
        a, b = found.get(name), expected.get(name)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        else:
            same = a == b
        if not same:
            return f"{name} differs"
    return None
