"""Weights of an earlier run: for evaluation, prediction, export, and to start another run from."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from flax_resnet.config.build import abstract_checkpoint
from flax_resnet.engine.state import TrainState
from flax_resnet.process.errors import UserError
from flax_resnet.runs.checkpoints import Checkpoints, Which
from flax_resnet.runs.folder import DataInfo, RunFolder

HEAD = "head"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained on.

    Attributes:
      config: of its run.
      data: of its run: class names, image shape.
      variables: {'params', 'batch_stats'}.
      step: steps it was trained for.
    """

    config: ConfigDict
    data: DataInfo
    variables: Any
    step: int


def load_trained(
    workdir: str | Path, which: Which = "last", sharding: jax.sharding.Sharding | None = None
) -> Trained:
    """The last or the best checkpoint of a run, on the devices of `sharding` (default: the first).

    Raises:
      UserError: no run there, no checkpoint yet, or no best one.
    """
    run = RunFolder(workdir)
    config = run.config()
    if which == "best" and not config.validation_split:
        raise UserError(
            f"{workdir} has no best checkpoint: it was trained without a validation split "
            "(config.validation_split), and the test images must not choose; take the last"
        )
    data = run.data_info()
    state, _ = abstract_checkpoint(config, len(data.class_names), data.image_shape)
    if not run.checkpoints.is_dir():
        raise UserError(f"{workdir} has no checkpoint yet")
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with Checkpoints(run.checkpoints, keep_best=which == "best", read_only=True) as checkpoints:
        variables, step = checkpoints.restore_variables(state.variables, sharding, which)
    return Trained(config, data, variables, step)


def start_from(state: TrainState, class_names: tuple[str, ...], trained: Trained) -> TrainState:
    """A fresh state with another run's weights; the head stays fresh where the classes differ.

    Raises:
      UserError: the networks differ elsewhere.
    """
    keep_head = class_names == trained.data.class_names
    new: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(state.variables))
    old: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(trained.variables))
    for path in sorted(new.keys() | old.keys()):
        if path[1] == HEAD and not keep_head:
            continue
        shapes = [tree[path].shape if path in tree else None for tree in (old, new)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"config.init_from: {'/'.join(path)} is {shapes[0] or 'absent'} there and "
                f"{shapes[1] or 'absent'} here: both networks need the same design"
            )
        new[path] = old[path]
    variables = traverse_util.unflatten_dict(new)
    return dataclasses.replace(
        state, params=variables["params"], batch_stats=variables["batch_stats"]
    )
