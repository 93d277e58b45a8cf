"""What training never changes, and how a run is opened: load, check, build, claim, compile."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from flax_resnet.config.build import (
    abstract_checkpoint,
    build_eval_step,
    build_model,
    build_optimizer,
    build_schedule,
    build_train_step,
    keeps_averages,
)
from flax_resnet.config.conv_choice import Choice, convolve, words
from flax_resnet.config.load import check_image_size, design_of
from flax_resnet.data.batches import Chunk, TrainBatches
from flax_resnet.data.dataset import STREAMED, Dataset
from flax_resnet.data.load import Loading, load_dataset
from flax_resnet.data.streaming import middle
from flax_resnet.data.transforms import build_transforms
from flax_resnet.engine.dispatch import CompiledSteps, PlacedChunk, choose_steps_per_dispatch
from flax_resnet.engine.evaluate import Evaluator
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.processes import Processes
from flax_resnet.engine.state import MetricSums, TrainState, init_state
from flax_resnet.inference.model import load_trained, start_from
from flax_resnet.models.summary import Summary, count_parameters, format_summary, summarize
from flax_resnet.models.whitening import set_filters, whitening_filters
from flax_resnet.optim.groups import is_frozen, parameter_name
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text
from flax_resnet.runs.checkpoints import Checkpoints, Saved
from flax_resnet.runs.folder import Arithmetic, DataInfo, RunFolder
from flax_resnet.runs.machines import note_machine
from flax_resnet.runs.metrics_log import MetricsLog, set_aside
from flax_resnet.training.devices import build_parallel, choose_arithmetic
from flax_resnet.training.progress import Progress
from flax_resnet.training.save_policy import SavePolicy

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Session:
    """One process's view of a run, fixed while it trains.

    Attributes:
      run: its folder.
      name: of its folder, for titles.
      num_epochs: of the whole run.
      last_epoch: the epoch to end after here.
      skips_non_finite: leave steps out whose loss or gradients are not finite; else stop there.
      reference_log: a run to draw behind the curves.
      processes: of which this is one.
      parallel: the devices of all of them.
      data: what the run remembers of its images.
      arithmetic: what else decides the run's bits.
      batches: the training batches.
      steps_per_dispatch: steps in one dispatch.
      train_steps: (batch size, whether the stem's bias stands still) -> the compiled step.
      stem_bias_steps: after these its gradient is not computed.
      evaluators: 'test', and 'val' where images are held out, after each epoch; 'test_views',
        which takes several times as long, after the last.
      schedule: learning rate by step.
      checkpoints: where they are written.
      metrics: where they are written.
      save_policy: when to save within an epoch.
    """

    run: RunFolder
    name: str
    num_epochs: int
    last_epoch: int
    skips_non_finite: bool
    reference_log: str | None
    processes: Processes
    parallel: DataParallel
    data: DataInfo
    arithmetic: Arithmetic
    batches: TrainBatches
    steps_per_dispatch: int
    train_steps: dict[tuple[int, bool], CompiledSteps]
    stem_bias_steps: float
    evaluators: dict[str, Evaluator]
    schedule: optax.Schedule
    checkpoints: Checkpoints
    metrics: MetricsLog
    save_policy: SavePolicy

    def evaluators_after(self, epoch: int) -> dict[str, Evaluator]:
        """Those that judge an epoch, counted from 1."""
        views = {"test_views"} if epoch < self.num_epochs else set()
        return {name: e for name, e in self.evaluators.items() if name not in views}

    def train_step(self, step: int, batch_size: int) -> CompiledSteps:
        """The training step after so many steps."""
        return self.train_steps[batch_size, step >= self.stem_bias_steps]

    def chunks_from(self, step: int) -> Iterator[PlacedChunk]:
        """The batches from a step to the last epoch's end, on the devices."""
        epoch, epoch_step = divmod(step, self.batches.steps_per_epoch)
        while epoch < self.last_epoch:
            for chunk in self.batches.epoch(epoch, epoch_step):
                yield self.place(chunk)
            epoch, epoch_step = epoch + 1, 0

    def place(self, chunk: Chunk) -> PlacedChunk:
        """Puts a chunk on the devices."""
        return self.parallel.place(chunk.images, chunk.labels, batch_size=chunk.batch_size)


def open_session(
    config: ConfigDict,
    run: RunFolder,
    checkpoints: Checkpoints,
    processes: Processes,
    *,
    devices: Sequence[Any] | None,
    cache_dir: Path | None,
    last_epoch: int,
    together: Sequence[int] = (),
) -> tuple[Session, Progress]:
    """Loads, checks and builds all of a run; only then the folder becomes that run's.

    Args:
      config: checked by config.validate, and against the run where it resumes.
      run: the folder, locked.
      checkpoints: of the run.
      processes: which open it together.
      devices: jax.Devices to share each batch; None: all of all processes.
      cache_dir: where decoded images are kept; None: the user's cache folder.
      last_epoch: the epoch to end after.
      together: seeds of the runs in one program with this one (together.py).

    Raises:
      UserError: anything the user can fix.
    """
    parallel = build_parallel(config, processes, devices)
    latest = checkpoints.latest
    recorded = None if latest is None else run.data_info().digest
    dataset = _load_dataset(config, cache_dir, processes, recorded)
    data, batches, splits = _load(config, dataset, parallel)
    if latest is not None:
        run.check_data(data)
    resumes = latest is not None
    arithmetic = choose_arithmetic(config, run, data, batches, parallel, resumes, together)
    schedule = build_schedule(config, batches.steps_per_epoch)
    _check_budget(config, data)
    progress = _progress(config, data, batches.images, checkpoints, parallel)
    checkpoints.check_space(progress.to_save())
    if not resumes:
        set_aside(run)
    run.claim(config, data, arithmetic)
    if run.writes:
        note_machine(run.path)
    # The record of an epoch that is about to be evaluated again is made again, too.
    logged = progress.step - (1 if progress.awaiting_evaluation else 0)
    epochs = logged // batches.steps_per_epoch
    session = Session(
        run=run,
        name=run.path.absolute().name,
        num_epochs=config.num_epochs,
        last_epoch=last_epoch,
        skips_non_finite=config.on_nan == "skip",
        reference_log=config.reference_log,
        processes=processes,
        parallel=parallel,
        data=data,
        arithmetic=arithmetic,
        batches=batches,
        steps_per_dispatch=batches.steps_per_chunk,
        train_steps=_train_steps(config, data, batches, parallel, arithmetic.conv),
        stem_bias_steps=_stem_bias_steps(config, batches, parallel),
        evaluators=_evaluators(config, data, parallel, splits, arithmetic.conv),
        schedule=schedule,
        checkpoints=checkpoints,
        metrics=MetricsLog(run, logged, epochs),
        save_policy=SavePolicy(config.checkpoint_every_steps, config.checkpoint_every_minutes),
    )
    return session, progress


def _load_dataset(
    config: ConfigDict, cache_dir: Path | None, processes: Processes, recorded: str | None
) -> Dataset:
    """The images, in memory or on disk: in all processes alike, and as where the run was begun.

    Args:
      config: of the run.
      cache_dir: where decoded images are kept; None: the user's cache folder.
      processes: that share the run. The others find what process 0 has prepared.
      recorded: digest of the data of a run that resumes.
    """

    def load(loading: Loading) -> Dataset:
        return load_dataset(
            config.dataset,
            data_dir=config.data_dir,
            archive=config.archive,
            image_size=config.image_size,
            cache_dir=cache_dir,
            loading=loading,
            native=config.image_decoder == "native",
        )

    loading = config.data_loading
    if loading == "auto" and recorded is not None:
        loading = "stream" if recorded.startswith(STREAMED) else "memory"
    dataset = load(loading) if processes.is_main else None
    streams = processes.of_main(lambda: dataset is not None and dataset.is_streamed)
    return dataset or load("stream" if streams else "memory")


def _load(
    config: ConfigDict, dataset: Dataset, parallel: DataParallel
) -> tuple[DataInfo, TrainBatches, dict[str, tuple[Any, Any]]]:
    """Training batches, and the images and labels to evaluate on by split."""
    check_image_size(config, dataset.image_shape)
    digest, share = dataset.digest, config.eval_crop
    dataset = dataset.first(config.train_images, config.test_images)
    splits = {"test": (middle(dataset.test_images, share), dataset.test_labels)}
    if config.validation_split:
        dataset, images, labels = dataset.split_validation(config.validation_split, config.seed)
        splits["val"] = middle(images, share), labels
    steps_per_dispatch = config.steps_per_dispatch or choose_steps_per_dispatch(
        parallel.platform,
        len(dataset.train_labels) // config.batch_size,
        config.batch_size * math.prod(dataset.image_shape),
    )
    batches = TrainBatches(
        dataset.train_images,
        dataset.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        transforms=build_transforms(
            crop_padding=config.crop_padding,
            flip=config.flip,
            pad_mode=config.pad_mode,
            alternating=config.flip_mode == "alternating",
            color_jitter=config.color_jitter,
            trivial_augment=config.trivial_augment,
            cutout=config.cutout,
            mean=config.mean,
            resized_crop=config.resized_crop,
            native=config.image_decoder == "native",
        ),
        drop_last=config.drop_last,
        steps_per_chunk=steps_per_dispatch,
        rows=parallel.rows,
    )
    if not batches.steps_per_epoch:
        raise UserError(
            f"config.drop_last leaves no step: batch_size is {config.batch_size}, and there "
            f"are {len(dataset.train_labels)} training images",
            field="config.drop_last",
        )
    rest = 0 if config.drop_last else len(dataset.train_labels) % config.batch_size
    if rest and not parallel.divides(rest) and rest > config.batch_size / parallel.num_devices:
        logger.warning(
            "note: %d devices cannot share the last %d images of an epoch: each computes all, "
            "which takes more memory than its part of a batch (config.drop_last=True drops them)",
            parallel.num_devices,
            rest,
        )
    data = DataInfo(
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        train_images=len(dataset.train_labels),
        test_images=len(dataset.test_labels),
        val_images=config.validation_split,
        digest=digest,
        source=dataset.source,
    )
    return data, batches, splits


def _check_budget(config: ConfigDict, data: DataInfo) -> None:
    if config.max_params is None:
        return
    params = count_parameters(build_model(config, len(data.class_names)), data.image_shape)
    if params > config.max_params:
        raise UserError(
            f"config.max_params is {config.max_params:,}, and the network has {params:,} "
            "parameters: choose a smaller design, or raise the limit",
            code="conflict",
            field="config.max_params",
        )


def _check_frozen(config: ConfigDict, params: Any) -> None:
    names = [parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for start in config.freeze:
        if not any(is_frozen(name, [start]) for name in names):
            raise UserError(
                f"config.freeze names {start!r}, but no parameter is called so; there are "
                f"{', '.join(dict.fromkeys(name.split('/')[0] for name in names))}",
                code="unknown",
                field="config.freeze",
            )


def _train_steps(
    config: ConfigDict, data: DataInfo, batches: TrainBatches, parallel: DataParallel, conv: Choice
) -> dict[tuple[int, bool], CompiledSteps]:
    """The training steps, not compiled yet.

    The short last batch takes the convolutions that compile fast: it is one step per epoch.
    """
    return {
        (size, holds): parallel.compile_train(
            build_train_step(
                config,
                len(data.class_names),
                batches.steps_per_epoch,
                convolve(conv, evaluation=size != batches.sizes[0]),
                holds_stem_bias=holds,
            )
        )
        for size in batches.sizes
        for holds in (False, True)
    }


def _stem_bias_steps(config: ConfigDict, batches: TrainBatches, parallel: DataParallel) -> float:
    """The steps after which another program, without the gradient of the stem's bias, is faster.

    On an accelerator compiling it takes longer than it saves. A norm of the gradient would lose
    that part.
    """
    needs_norm = config.clip_norm or config.sam_rho
    if config.stem_bias_epochs is None or needs_norm or parallel.platform != "cpu":
        return math.inf
    return config.stem_bias_epochs * batches.steps_per_epoch


def _evaluators(
    config: ConfigDict,
    data: DataInfo,
    parallel: DataParallel,
    splits: dict[str, tuple[Any, Any]],
    conv: Choice,
) -> dict[str, Evaluator]:
    """The evaluator of each split, around one compiled step; 'test_views' of the views, if any."""

    def evaluator(split: str, views: str = "none") -> Evaluator:
        if views not in compiled:
            step = build_eval_step(
                config, len(data.class_names), views, convolve(conv, evaluation=True)
            )
            compiled[views] = parallel.compile_eval(step)
        images, labels = splits[split]
        return Evaluator(
            compiled[views],
            parallel,
            images,
            labels,
            config.eval_batch_size,
            config.steps_per_dispatch,
        )

    compiled: dict[str, CompiledSteps] = {}
    evaluators = {name: evaluator(name) for name in splits}
    if config.test_views != "none":
        evaluators["test_views"] = evaluator("test", config.test_views)
    return evaluators


def _progress(
    config: ConfigDict,
    data: DataInfo,
    train_images: Any,
    checkpoints: Checkpoints,
    parallel: DataParallel,
) -> Progress:
    """The start of a run, or the place of its last checkpoint."""
    latest = checkpoints.latest
    if latest is None:
        state = _initial_state(config, data, train_images)
        return Progress(parallel.replicate(state), parallel.replicate(MetricSums.zeros()))
    expected = abstract_checkpoint(config, len(data.class_names), data.image_shape)
    saved = checkpoints.restore(Saved(*expected, 0.0, True), parallel.replicated)
    return Progress.resumed(saved, latest.step)


def _initial_state(config: ConfigDict, data: DataInfo, train_images: Any) -> TrainState:
    state = init_state(
        build_model(config, len(data.class_names)),
        build_optimizer(config),
        data.image_shape,
        config.seed,
        averages=keeps_averages(config),
    )
    _check_frozen(config, state.params)
    if design_of(config).stem == "whiten":
        state = _whitened(state, whitening_filters(train_images, config.mean, config.std))
    if config.init_from is None:
        return state
    trained = load_trained(config.init_from)
    state = start_from(state, data.class_names, trained)
    same = trained.data.class_names == data.class_names
    kept = "all weights" if same else "all weights but the head's"
    logger.info("starting from %s, step %d: %s", config.init_from, trained.step, kept)
    return state


def _whitened(state: TrainState, filters: Any) -> TrainState:
    """The state with these filters in the network's stem."""
    averages = state.averages
    if averages is not None:
        averages = averages | {"params": set_filters(averages["params"], filters)}
    return dataclasses.replace(state, params=set_filters(state.params, filters), averages=averages)


def describe(session: Session, config: ConfigDict, progress: Progress) -> None:
    """Says what is trained on what; writes the layer table."""
    data, parallel, steps = session.data, session.parallel, session.batches.steps_per_epoch
    summary = write_summary(session, config)
    validation = f" / {data.val_images:,} validation" if data.val_images else ""
    logger.info(
        f"{session.name}, {summary.params:,} parameters, on {data.source}: "
        f"{data.train_images:,} training{validation} / {data.test_images:,} test images of "
        f"{len(data.class_names)} classes"
    )
    logger.info(
        f"{parallel.num_devices} x {parallel.devices[0].device_kind}"
        f"{'' if session.processes.alone else f' of {jax.process_count()} processes'}, "
        f"{config.dtype}, "
        f"{config.parallel}, {words(session.arithmetic.conv)} convolutions; "
        f"{_count(session.num_epochs, 'epoch')} of {_count(steps, 'step')}; "
        f"files in {session.run.path}"
    )
    if progress.saved is not None:
        epoch, step = divmod(progress.step, steps)
        logger.info(
            f"resuming from step {progress.step} (epoch {epoch + 1}, {step} of {steps} steps done)"
        )


def write_summary(session: Session, config: ConfigDict) -> Summary:
    """Writes the layer table to summary.txt."""
    model = build_model(config, len(session.data.class_names))
    summary = summarize(model, session.data.image_shape)
    if session.run.writes:
        write_text(session.run.summary_file, format_summary(summary, session.name) + "\n")
    return summary


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def compile_steps(session: Session, progress: Progress) -> None:
    """Compiles before the clock starts, for the full and for the short batch."""
    start = time.monotonic()
    plan = session.batches.plan(0)
    last_step = session.last_epoch * session.batches.steps_per_epoch - 1
    for bounds in session.batches.distinct_chunks():
        placed = session.place(session.batches.chunk(plan, *bounds))
        for step in {session.train_step(s, placed.batch_size) for s in (progress.step, last_step)}:
            step.compile_for(progress.state, progress.sums, placed)
    for evaluator in session.evaluators.values():
        evaluator.compile(progress.state.evaluated)
    logger.info("compiled in %.1f s", time.monotonic() - start)
