"""The training loop: epochs, evaluation, metrics, checkpoints, and resuming where a run stopped."""

import contextlib
import dataclasses
import logging
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from ml_collections import ConfigDict

from flax_resnet.config.load import flat_fields
from flax_resnet.data.batches import prefetch
from flax_resnet.engine.dispatch import InFlight, PlacedChunk
from flax_resnet.engine.processes import Processes
from flax_resnet.engine.state import MetricSums
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.runs.checkpoints import Checkpoint, Checkpoints
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, describe_row, read_metrics
from flax_resnet.runs.reference_log import read_reference
from flax_resnet.training.hooks import Hook, default_hooks
from flax_resnet.training.progress import Progress
from flax_resnet.training.session import Session, compile_steps, describe, open_session

logger = logging.getLogger(__name__)

OF_A_HOST = ("archive", "data_dir", "reference_log")  # paths, which may differ between hosts


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
      signum: the signal that stopped it; None: the run is finished.
      step: the step that is saved.
    """

    signum: int | None
    step: int


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    *,
    devices: Sequence[Any] | None = None,
    cache_dir: Path | None = None,
    until_epoch: int | None = None,
    stop: StopRequest | None = None,
    hooks: Sequence[Hook] = (),
) -> Outcome:
    """Trains the run in `workdir`, from its start or its last checkpoint, to its end or a stop.

    Where JAX runs on several processes (jax.distributed), all call this and train it together.

    Args:
      config: checked by config.validate.
      workdir: folder of the run, made where it is missing.
      devices: jax.Devices to share each batch; None: all of all processes.
      cache_dir: where decoded images are kept; None: the user's cache folder.
      until_epoch: the epoch to end after, so that a part of a run is the start of the whole one
        (a schedule still spans config.num_epochs); None: the last.
      stop: asks for a stop from elsewhere; if it listens, so do signals while training.
      hooks: called besides the default ones, which draw, log and write TensorBoard's events.

    Raises:
      UserError: anything the user can fix.
    """
    if config.reference_log is not None:
        read_reference(config.reference_log)  # fails now, not after an epoch
    stop = StopRequest() if stop is None else stop
    last_epoch = min(until_epoch or config.num_epochs, config.num_epochs)
    processes = Processes()
    run = RunFolder(workdir, writes=processes.is_main)
    with opened(run, processes, config) as checkpoints:
        latest = checkpoints.latest
        if latest is not None:
            run.check_resumable(config)
            if is_finished(run, checkpoints, last_epoch, processes):
                say_finished(run)
                return Outcome(None, latest.step)
            run.check_arithmetic()
        session, progress = open_session(
            config,
            run,
            checkpoints,
            processes,
            devices=devices,
            cache_dir=cache_dir,
            last_epoch=last_epoch,
        )
        describe(session, config, progress)
        compile_steps(session, progress)
        with stop.saving_first():
            train(session, progress, stop, (*(default_hooks() if run.writes else ()), *hooks))
            if is_finished(run, checkpoints, last_epoch, processes) or not stop:
                return Outcome(None, progress.step)
            resume = "run the same command again to resume"
            logger.info("saved at step %d in %s; %s", progress.step, run.path, resume)
            return Outcome(stop.signum, progress.step)


@contextlib.contextmanager
def going_on_after_divergence(name: str) -> Iterator[None]:
    """Has one of many runs end, with a line, where its loss is not finite."""
    try:
        yield
    except UserError as error:
        if error.code != "not_finite":
            raise
        logger.warning("%s ends here, and the others go on: %s", name, error)


@contextlib.contextmanager
def opened(run: RunFolder, processes: Processes, config: ConfigDict) -> Iterator[Checkpoints]:
    """The folder, locked, and its checkpoints."""
    if config.distributed == "auto" and not jax.distributed.is_initialized():
        raise UserError(
            "config.distributed is auto, but this process has not joined others: only `train` "
            "does; in a program, call jax.distributed.initialize first",
            code="conflict",
            field="config.distributed",
        )
    with contextlib.ExitStack() as opened:
        with processes.main_first():  # it alone removes what a killed run left
            opened.enter_context(run.locked())
            keep_best = config.validation_split > 0
            checkpoints = Checkpoints(
                run.checkpoints, keep_best=keep_best, read_only=not run.writes
            )
            opened.enter_context(checkpoints)
            latest = checkpoints.latest
        _check_alike(processes, run, config, latest)
        yield checkpoints


def _check_alike(
    processes: Processes, run: RunFolder, config: ConfigDict, latest: Checkpoint | None
) -> None:
    """Checks that all processes were started for the same run.

    Raises:
      UserError: they see another folder, or have another config.
    """
    shared = {name: v for name, v in flat_fields(config).items() if name not in OF_A_HOST}
    if not processes.all_have(zlib.crc32(repr(shared).encode()) >> 1):
        raise UserError(
            "the processes were started with different configs: give all the same command",
            code="conflict",
        )
    place = -1 if latest is None else 2 * latest.step + latest.evaluated
    if not processes.all_have(place):
        raise UserError(
            f"the processes see different checkpoints in {run.path}: --workdir must be a folder "
            "that all of them share",
            code="conflict",
            field=str(run.path),
        )


def is_finished(
    run: RunFolder, checkpoints: Checkpoints, last_epoch: int, processes: Processes
) -> bool:
    """Whether the last epoch is trained, evaluated and saved."""
    checkpoints.wait()

    def find() -> bool:
        latest = checkpoints.latest
        if latest is None or not run.metrics_file.exists():
            return False
        rows = read_metrics(run.metrics_file)
        if not rows or rows[-1]["epoch"] < last_epoch:
            return False
        return (rows[-1]["step"], True) <= latest.place  # or beyond, for a part of a run

    return bool(processes.of_main(find))


def say_finished(run: RunFolder) -> None:
    """Says how a finished run ended."""
    final = describe_row(read_metrics(run.metrics_file)[-1])
    logger.info("%s is finished: %s", run.path, final)


def train(
    session: Session, progress: Progress, stop: StopRequest, hooks: Sequence[Hook] = ()
) -> None:
    """Trains until the run is finished or `stop` is set; everything is saved on return.

    Raises:
      UserError: a step was not finite, or something could not be written.
    """
    steps = session.batches.steps_per_epoch
    # Over all epochs: while one is evaluated, the images of the next are made.
    first_step = progress.step
    chunks = prefetch(lambda: session.chunks_from(first_step))
    try:
        for hook in hooks:
            hook.start(session, progress)
        while progress.awaiting_evaluation or progress.step // steps < session.last_epoch:
            if not progress.awaiting_evaluation:
                train_epoch(session, progress, chunks, stop, hooks)
            if not progress.awaiting_evaluation or not evaluate_epoch(
                session, progress, stop, hooks
            ):
                say_stopping(stop)
                break
        if not progress.is_saved:
            save(session, progress)
        session.checkpoints.wait()
        for hook in hooks:
            hook.end(session, progress)
    finally:
        chunks.close()
        for hook in hooks:
            hook.close()


def train_epoch(
    session: Session,
    progress: Progress,
    chunks: Iterator[PlacedChunk],
    stop: StopRequest,
    hooks: Sequence[Hook],
) -> None:
    """Trains the rest of an epoch, or up to a stop; at its end it awaits evaluation."""
    steps = session.batches.steps_per_epoch
    epoch_end = (progress.step // steps + 1) * steps
    in_flight = InFlight(
        session.parallel.platform, session.steps_per_dispatch, alone=session.processes.alone
    )
    for hook in hooks:
        hook.before_epoch(session, progress)
    progress.start_clock()
    agreed = session.processes
    while progress.step < epoch_end and not agreed.should_stop(stop, progress.seconds_unsaved):
        chunk = next(chunks)
        step = session.train_step(progress.step, chunk.batch_size)
        progress.state, progress.sums = step(progress.state, progress.sums, chunk)
        progress.step += chunk.steps
        done = in_flight.add(progress.sums)
        for hook in hooks:
            hook.after_dispatch(session, progress)
        if done is not None and must_stop_at(session, done):
            break
        if progress.step < epoch_end and session.save_policy.is_due(
            progress.step, chunk.steps, agreed.seconds
        ):
            progress.stop_clock()
            if must_stop_at(session, progress.sums):
                break
            save(session, progress)
            progress.start_clock()
    progress.stop_clock()
    if must_stop_at(session, progress.sums):
        stop_before_non_finite(session, progress, epoch_end // steps)
    progress.awaiting_evaluation = progress.step == epoch_end


def evaluate_epoch(
    session: Session, progress: Progress, stop: StopRequest, hooks: Sequence[Hook]
) -> bool:
    """Evaluates, logs and saves a trained epoch; False: stopped before that."""
    record = evaluated_record(session, progress, stop)
    if record is None:
        return False
    log_epoch(session, progress, record, hooks)
    # An epoch shorter than the writing of a checkpoint goes without, unless it is the best.
    val_accuracy = record.get("val_accuracy")
    checkpoints = session.checkpoints
    if session.processes.of_main(
        lambda: checkpoints.would_be_best(val_accuracy) or not checkpoints.is_saving
    ):
        save(session, progress, val_accuracy)
    return True


def evaluated_record(session: Session, progress: Progress, stop: StopRequest) -> Row | None:
    """All metrics of the epoch that ends here; None: stopped before that.

    Raises:
      UserError: every step of it was skipped.
    """
    record = make_record(session, progress)
    for name, evaluator in session.evaluators_after(record["epoch"]).items():
        evaluation = evaluator(
            progress.state.evaluated, lambda: session.processes.should_stop(stop)
        )
        if evaluation is None:
            return None
        record |= {f"{name}_loss": evaluation.loss, f"{name}_accuracy": evaluation.accuracy}
    return record


def log_epoch(session: Session, progress: Progress, record: Row, hooks: Sequence[Hook]) -> None:
    """Adds an epoch's record to the metrics; the next epoch begins.

    Before a checkpoint of it is written: after a crash in between, resuming drops the record and
    makes it again.
    """
    session.run.check_held()
    session.metrics.append(record)
    progress.begin_epoch(session.parallel)
    for hook in hooks:
        hook.after_epoch(session, progress, record)


def make_record(session: Session, progress: Progress) -> Row:
    """The training metrics of the epoch that ends here.

    Raises:
      UserError: every step of it was skipped.
    """
    sums = jax.device_get(progress.sums)
    epoch = progress.step // session.batches.steps_per_epoch
    if not has_learned(progress):
        raise UserError(
            f"epoch {epoch}: the loss or the new weights of every step were NaN or infinite, so "
            "nothing was learned: lower config.learning_rate in another folder",
            code="not_finite",
            field="config.learning_rate",
        )
    skipped = {"skipped_steps": int(sums.non_finite)} if session.skips_non_finite else {}
    return {
        "epoch": epoch,
        "step": progress.step,
        "train_loss": float(sums.loss) / int(sums.batches),
        "train_accuracy": int(sums.correct) / int(sums.images),
        "learning_rate": float(session.schedule(progress.step - 1)),
        "seconds": progress.seconds,
        "images_per_second": int(sums.images) / progress.seconds,
        **skipped,
    }


def has_learned(progress: Progress) -> bool:
    """Whether a step of the epoch was taken; to be asked when the device has finished."""
    return int(progress.sums.batches) > 0


def save(session: Session, progress: Progress, val_accuracy: float | None = None) -> None:
    """Begins to write a checkpoint of this place."""
    session.run.check_held()
    session.checkpoints.save(progress.to_save(), progress.step, val_accuracy=val_accuracy)
    progress.saved = progress.step, progress.awaiting_evaluation
    progress.last_save = time.monotonic()
    session.processes.forget_seconds()


def must_stop_at(session: Session, sums: MetricSums) -> bool:
    """Whether a step was not finite; to be asked of sums that the device has finished."""
    return not session.skips_non_finite and int(sums.non_finite) > 0


def save_before_non_finite(session: Session, progress: Progress) -> None:
    """Saves the state before the step that was not finite, where the device has stopped."""
    progress.step = int(progress.state.step)
    none = session.parallel.replicate(MetricSums.zeros().non_finite)
    progress.sums = dataclasses.replace(progress.sums, non_finite=none)
    if not progress.is_saved:
        save(session, progress)
    session.checkpoints.wait()


def stop_before_non_finite(session: Session, progress: Progress, epoch: int) -> NoReturn:
    """Saves the state before the step that was not finite, and says which it was."""
    save_before_non_finite(session, progress)
    step_of_epoch = progress.step - (epoch - 1) * session.batches.steps_per_epoch + 1
    raise UserError(
        f"step {progress.step + 1} (epoch {epoch}, step {step_of_epoch} of it): the loss or the "
        f"new state is NaN or infinite; the state before it, of step {progress.step}, is saved in "
        f"{session.run.path}. Lower config.learning_rate in another folder, or skip such steps: "
        "config.on_nan=skip",
        code="not_finite",
        field="config.learning_rate",
    )


def say_stopping(stop: StopRequest) -> None:
    """Says what asked for the stop."""
    name = "stop" if stop.signum is None else signal.Signals(stop.signum).name
    logger.info("%s: saving, then stopping", name)
