"""The devices that share a run's batches, and the arithmetic that they decide."""

import logging
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from flax_resnet.config.conv_choice import Choice, choose_conv, computable, words
from flax_resnet.data.batches import TrainBatches
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.processes import Processes
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import Arithmetic, DataInfo, RunFolder

logger = logging.getLogger(__name__)


def build_parallel(
    config: ConfigDict, processes: Processes, devices: Sequence[Any] | None
) -> DataParallel:
    """The devices, and a check that the batch can be shared by them.

    Raises:
      UserError: batch_size is no multiple of them, or batch_norm_devices no divisor.
    """
    devices = jax.local_devices() if devices is None and processes.alone else devices
    devices = jax.devices() if devices is None else devices
    number, size = len(devices), config.batch_size
    if size % number:
        nearest = max(1, round(size / number)) * number
        raise UserError(
            f"config.batch_size is {size}, which {number} devices cannot share equally: the "
            f"nearest that they can is {nearest}; or use fewer devices",
            code="conflict",
            field="config.batch_size",
        )
    batch_norm = config.batch_norm
    if batch_norm == "group":
        batch_norm = config.batch_norm_devices
        if number % batch_norm:
            raise UserError(
                f"config.batch_norm_devices is {batch_norm}, which does not divide the {number} "
                "devices into groups",
                code="conflict",
                field="config.batch_norm_devices",
            )
    if config.parallel == "pmap" and not processes.alone:
        raise UserError(
            "config.parallel is pmap, which is for one process: use jit",
            code="conflict",
            field="config.parallel",
        )
    return DataParallel(config.parallel, batch_norm, devices)


def choose_arithmetic(
    config: ConfigDict,
    run: RunFolder,
    data: DataInfo,
    batches: TrainBatches,
    parallel: DataParallel,
    resumes: bool,
    together: Sequence[int] = (),
) -> Arithmetic:
    """What decides the run's bits; a resumed run keeps its convolutions where they can be computed.

    Runs that are trained together take XLA's: the others do not survive vmap (models/cpu/fence.py).
    """
    platform, devices = parallel.devices[0].platform, parallel.num_devices
    before = run.arithmetic() if resumes else None
    conv: Choice
    if together:
        conv = "native"
    elif (
        before is not None
        and before.platform == platform
        and config.conv == "auto"
        and computable(before.conv, config.dtype, parallel.devices)
    ):
        conv = before.conv
    else:
        images = config.num_epochs * batches.images_before(batches.steps_per_epoch)
        conv = choose_conv(config, data.image_shape, images, parallel.devices)
    processes = len({device.process_index for device in parallel.devices})
    now = Arithmetic(conv, platform, devices, processes, tuple(together))
    if before is not None and now != before:
        logger.warning(
            "note: %s now, %s before: from here on the run is not bit-for-bit what it would have "
            "been",
            _words(now),
            _words(before),
        )
    return now


def _words(arithmetic: Arithmetic) -> str:
    processes = f" of {arithmetic.processes} processes" if arithmetic.processes > 1 else ""
    seeds = len(arithmetic.together)
    together = f" in a program of {seeds} seeds" if seeds else ""
    return (
        f"{arithmetic.devices} x {arithmetic.platform}{processes} with {words(arithmetic.conv)} "
        f"convolutions{together}"
    )
