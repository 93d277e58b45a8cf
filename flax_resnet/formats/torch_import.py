"""A run's folder from a PyTorch file: weights that evaluate, predict, export and init_from take."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flax_resnet.config.build import abstract_checkpoint, build_model
from flax_resnet.config.load import check_image_size, design_of
from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.formats.torch_file import open_state
from flax_resnet.formats.torch_names import (
    check_design,
    classes_of,
    from_torch,
    pooled_size,
    steps_of,
)
from flax_resnet.models.summary import format_summary, summarize
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text
from flax_resnet.runs.checkpoints import Checkpoints, Saved
from flax_resnet.runs.folder import DataInfo, RunFolder


def import_torch(path: Path, config: ConfigDict, data: DataInfo, workdir: str | Path) -> int:
    """Writes a run's folder with the weights of a PyTorch file.

    Args:
      path: a .safetensors, .pt or .pth file.
      config: names the network, and what the run remembers.
      data: what the network was trained on.
      workdir: must hold no run yet.

    Returns:
      The number of parameters.

    Raises:
      UserError: the file cannot be read or holds another network, or the folder holds a run.
    """
    check_design(design_of(config), str(path))
    check_image_size(config, data.image_shape)
    with open_state(path) as state:
        classes = classes_of(state)
        if classes is not None and classes != len(data.class_names):
            raise UserError(
                f"{path} has {classes:,} classes, and {data.source} has {len(data.class_names):,}: "
                "name those of the file with --class-names",
                code="conflict",
                field=str(path),
            )
        network = build_model(config, len(data.class_names))
        expected, _ = abstract_checkpoint(config, len(data.class_names), data.image_shape)
        pooled = pooled_size(network, data.image_shape)
        variables = from_torch(state, expected.variables, pooled, path)
        step = steps_of(state)
    _write(config, data, RunFolder(workdir), variables, step, path)
    summary = summarize(network, data.image_shape)
    write_text(RunFolder(workdir).summary_file, format_summary(summary, path.name) + "\n")
    return summary.params


def _write(
    config: ConfigDict,
    data: DataInfo,
    run: RunFolder,
    variables: Mapping[str, Any],
    step: int,
    path: Path,
) -> None:
    state = TrainState(
        step=np.int32(step),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=(),
        averages=variables if config.ema_decay > 0 else None,
    )
    sums = jax.tree.map(np.asarray, MetricSums.zeros(jnp.float32))
    with run.locked(), Checkpoints(run.checkpoints, keep_best=False) as checkpoints:
        if run.config_file.exists() or checkpoints.latest is not None:
            raise UserError(
                f"{run.path} holds a run already: choose another --workdir",
                code="conflict",
                field="--workdir",
            )
        checkpoints.save(Saved(state, sums, 0.0, evaluated=True), step)
        checkpoints.wait()
        run.claim_imported(config, data, {"file": path.name, "sha256": _digest(path)})


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
