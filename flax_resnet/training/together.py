"""Several seeds in one program: runs that differ in their seed alone, trained side by side.

A small network leaves an accelerator idle; several of them fill it. Each run is an ordinary one,
with its own folder, batches, state, metrics and checkpoints; what they share is the dispatch.
All of them save at the same steps, and none begins to save before all have finished the save
before, so that a kill at any moment leaves each with a checkpoint of a step that all have.
"""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.build import build_train_step
from flax_resnet.data.batches import prefetch
from flax_resnet.engine.dispatch import CompiledSteps, InFlight, PlacedChunk
from flax_resnet.engine.processes import Processes
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.runs.checkpoints import START, Checkpoints
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, describe_row
from flax_resnet.runs.reference_log import read_reference
from flax_resnet.training.hooks import PLOT_SHARE, Bar, Hook, Plots, TensorBoard
from flax_resnet.training.loop import (
    evaluated_record,
    has_learned,
    is_finished,
    log_epoch,
    make_record,
    must_stop_at,
    opened,
    save,
    save_before_non_finite,
    say_finished,
    say_stopping,
    stop_before_non_finite,
)
from flax_resnet.training.progress import Progress
from flax_resnet.training.session import Session, describe, open_session, write_summary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A run whose folder is open."""

    config: ConfigDict
    folder: RunFolder
    checkpoints: Checkpoints

    @property
    def partners(self) -> tuple[int, ...]:
        """Seeds of the runs that it was trained with, itself among them; empty: none yet."""
        begun = self.folder.arithmetic_file.exists()
        return self.folder.arithmetic().together if begun else ()

    @property
    def place(self) -> tuple[int, bool]:
        """Where it stands."""
        return self.checkpoints.place


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A run as it trains."""

    session: Session
    progress: Progress
    hooks: tuple[Hook, ...]


class _EpochLine(Hook):
    """Logs the metrics of each epoch in one line, with the run's name."""

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Logs it."""
        logger.info("%s: %s", session.name, describe_row(record, session.num_epochs))


def check_together(config: ConfigDict, *, alone: bool, num_devices: int) -> None:
    """Checks that runs of this config can be trained together.

    Args:
      config: of any of them.
      alone: whether JAX runs on one process.
      num_devices: devices that are to train them.

    Raises:
      UserError: it asks for what one program of several runs cannot do.
    """
    if not alone:
        field, problem = "--together", "is for one process: start no others"
    elif config.parallel == "pmap":
        field, problem = "config.parallel", "is pmap: use jit"
    elif config.conv not in ("auto", "native"):
        field, problem = "config.conv", f"is {config.conv}: use native"
    elif config.batch_norm != "global" and num_devices > 1:
        field, problem = "config.batch_norm", f"is {config.batch_norm}: use global, or one device"
    else:
        return
    raise UserError(
        f"these runs cannot be one program: {field} {problem}", code="conflict", field=field
    )


def train_together(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[Path],
    *,
    devices: Sequence[Any] | None = None,
    cache_dir: Path | None = None,
    stop: StopRequest | None = None,
) -> None:
    """Trains runs, from their starts or last checkpoints, to their ends or a stop.

    The result is that of training each alone with native convolutions, but for rounding. Runs that
    stand at the same step are one program; of others, those that are behind come first.

    Args:
      configs: checked by check_together; they differ in their seeds alone.
      workdirs: their folders.
      devices: jax.Devices to train them; None: all local ones.
      cache_dir: where decoded images are kept; None: the user's cache folder.
      stop: asks for a stop from elsewhere; if it listens, so do signals while training.

    Raises:
      UserError: anything the user can fix, with any of them. Where a loss is not finite, the other
        runs are trained first.
    """
    if configs[0].reference_log is not None:
        read_reference(configs[0].reference_log)  # fails now, not after an epoch
    stop = StopRequest() if stop is None else stop
    processes = Processes()
    with contextlib.ExitStack() as stack:
        runs = []
        for config, workdir in zip(configs, workdirs, strict=True):
            folder = RunFolder(workdir)
            checkpoints = stack.enter_context(opened(folder, processes, config))
            if checkpoints.latest is not None:
                folder.check_resumable(config)
                folder.check_arithmetic()
            runs.append(_Opened(config, folder, checkpoints))
        diverged: UserError | None = None
        groups = _groups(runs, processes)
        while groups:
            group = groups.pop(0)
            try:
                _train_group(group, processes, stop, devices, cache_dir)
            except UserError as error:
                if error.code != "not_finite":
                    raise
                # Its traceback would keep the arrays of this group.
                diverged = diverged or error.with_traceback(None)
                for run in group:
                    run.checkpoints.wait()
                behind = min(run.place for run in group)  # the run whose step it was
                groups += _groups([run for run in group if run.place > behind], processes)
            if stop.signum is not None:
                return
        if diverged is not None:
            raise diverged


def _groups(runs: Sequence[_Opened], processes: Processes) -> list[list[_Opened]]:
    """The runs that are one program each, without those that are finished."""
    # Where none of those that began together has a checkpoint yet, all are as good as new.
    begun = {run.partners for run in runs if run.place != START}
    found: dict[tuple[int, ...], list[_Opened]] = {}
    for run in runs:
        found.setdefault(run.partners if run.partners in begun else (), []).append(run)
    groups: list[list[_Opened]] = []
    for partners, members in found.items():
        if partners:  # some may have saved once more than the others before a kill
            first = min(run.place for run in members)
            for run in members:
                run.checkpoints.go_back(first)
        left = []
        for run in sorted(members, key=lambda run: run.place):  # stable
            if is_finished(run.folder, run.checkpoints, run.config.num_epochs, processes):
                say_finished(run.folder)
            else:
                left.append(run)
        groups += [list(group) for _, group in itertools.groupby(left, lambda run: run.place)]
    return groups


def _train_group(
    group: Sequence[_Opened],
    processes: Processes,
    stop: StopRequest,
    devices: Sequence[Any] | None,
    cache_dir: Path | None,
) -> None:
    """Trains runs that stand at the same step as one program."""
    runs = _build(group, processes, devices, cache_dir)
    session, config = runs[0].session, group[0].config
    describe(session, config, runs[0].progress)
    for run in runs[1:]:
        write_summary(run.session, config)
    logger.info("one program trains %s", ", ".join(run.session.name for run in runs))
    seeds = [each.config.seed for each in group]
    classes, total = len(session.data.class_names), session.batches.steps_per_epoch
    step = build_train_step(config, classes, total)
    steps = {size: session.parallel.compile_together(step, seeds) for size in session.batches.sizes}
    _compile(runs, steps)
    with stop.saving_first():
        if not _train(runs, steps, stop):
            saved = runs[0].progress.step
            logger.info("all saved at step %d; run the same command again to resume", saved)


def _build(
    group: Sequence[_Opened],
    processes: Processes,
    devices: Sequence[Any] | None,
    cache_dir: Path | None,
) -> list[_Run]:
    """The runs, with one copy of the images and of the compiled evaluation."""
    runs: list[_Run] = []
    for each in group:
        session, progress = open_session(
            each.config,
            each.folder,
            each.checkpoints,
            processes,
            devices=devices,
            cache_dir=cache_dir,
            last_epoch=each.config.num_epochs,
            together=[one.config.seed for one in group],
        )
        if runs:
            evaluators = runs[0].session.evaluators
            if not each.config.validation_split:  # else each holds other images out
                session.batches.share_images(runs[0].session.batches)
                session = dataclasses.replace(session, evaluators=evaluators)
            for name, evaluator in session.evaluators.items():
                evaluator.steps = evaluators[name].steps
        hooks = (_EpochLine(), TensorBoard(), Plots(PLOT_SHARE / len(group)))
        runs.append(_Run(session, progress, hooks if runs else (Bar(), *hooks)))
    return runs


def _compile(runs: Sequence[_Run], steps: dict[int, CompiledSteps]) -> None:
    """Compiles before the clock starts, as for a single run."""
    start = time.monotonic()
    session, progress = runs[0].session, runs[0].progress
    plan = session.batches.plan(0)
    states, sums = tuple(r.progress.state for r in runs), tuple(r.progress.sums for r in runs)
    for bounds in session.batches.distinct_chunks():
        placed = session.place(session.batches.chunk(plan, *bounds))
        steps[placed.batch_size].compile_for(states, sums, _joined([placed] * len(runs)))
    for evaluator in session.evaluators.values():
        evaluator.compile(progress.state.evaluated)
    logger.info("compiled in %.1f s", time.monotonic() - start)


def _joined(chunks: Sequence[PlacedChunk]) -> PlacedChunk:
    """A chunk of the runs' chunks, as DataParallel.compile_together takes it."""
    arrays = tuple(array for chunk in chunks for array in chunk.arrays)
    return dataclasses.replace(chunks[0], arrays=arrays)


def _chunks(runs: Sequence[_Run], step: int) -> Iterator[PlacedChunk]:
    for chunks in zip(*(run.session.chunks_from(step) for run in runs), strict=True):
        yield _joined(chunks)


def _each_hook(runs: Sequence[_Run]) -> Iterator[tuple[_Run, Hook]]:
    return ((run, hook) for run in runs for hook in run.hooks)


def _train(runs: Sequence[_Run], steps: dict[int, CompiledSteps], stop: StopRequest) -> bool:
    """As loop.train, of all runs; False: stopped."""
    session, progress = runs[0].session, runs[0].progress
    first_step = progress.step
    chunks = prefetch(lambda: _chunks(runs, first_step))
    try:
        for run, hook in _each_hook(runs):
            hook.start(run.session, run.progress)
        while (
            progress.awaiting_evaluation
            or progress.step // session.batches.steps_per_epoch < session.last_epoch
        ):
            if not progress.awaiting_evaluation:
                _train_epoch(runs, steps, chunks, stop)
            if not progress.awaiting_evaluation or not _evaluate_epoch(runs, stop):
                say_stopping(stop)
                finished = False
                break
        else:
            finished = True
        _save(runs)
        for run in runs:
            run.session.checkpoints.wait()
        for run, hook in _each_hook(runs):
            hook.end(run.session, run.progress)
        return finished
    finally:
        chunks.close()
        for _, hook in _each_hook(runs):
            hook.close()


def _train_epoch(
    runs: Sequence[_Run],
    steps: dict[int, CompiledSteps],
    chunks: Iterator[PlacedChunk],
    stop: StopRequest,
) -> None:
    """As loop.train_epoch, of all runs."""
    session, progress = runs[0].session, runs[0].progress
    total = session.batches.steps_per_epoch
    epoch_end = (progress.step // total + 1) * total
    in_flight = InFlight(session.parallel.platform, session.steps_per_dispatch)
    for run, hook in _each_hook(runs):
        hook.before_epoch(run.session, run.progress)
    for run in runs:
        run.progress.start_clock()
    while progress.step < epoch_end and not stop:
        chunk = next(chunks)
        _dispatch(runs, steps[chunk.batch_size], chunk)
        done = in_flight.add([run.progress.sums for run in runs])
        for run, hook in _each_hook(runs):
            hook.after_dispatch(run.session, run.progress)
        if done is not None and any(must_stop_at(session, sums) for sums in done):
            break
        if progress.step < epoch_end and session.save_policy.is_due(
            progress.step, chunk.steps, progress.seconds_unsaved
        ):
            if _stop_clock(runs):
                break
            _save(runs)
            for run in runs:
                run.progress.start_clock()
    failed = _stop_clock(runs)
    for run in runs:
        run.progress.awaiting_evaluation = progress.step == epoch_end and run not in failed
    if failed:
        _save([run for run in runs if run not in failed])
        for run in failed:
            save_before_non_finite(run.session, run.progress)
        stop_before_non_finite(failed[0].session, failed[0].progress, epoch_end // total)


def _dispatch(runs: Sequence[_Run], steps: CompiledSteps, chunk: PlacedChunk) -> None:
    states = tuple(run.progress.state for run in runs)
    new = steps(states, tuple(run.progress.sums for run in runs), chunk)
    for run, state, sums in zip(runs, *new, strict=True):
        run.progress.state, run.progress.sums = state, sums
        run.progress.step += chunk.steps


def _stop_clock(runs: Sequence[_Run]) -> list[_Run]:
    """Waits for the device; returns the runs whose last step was not finite."""
    for run in runs:
        run.progress.stop_clock()
    return [run for run in runs if must_stop_at(run.session, run.progress.sums)]


def _evaluate_epoch(runs: Sequence[_Run], stop: StopRequest) -> bool:
    """As loop.evaluate_epoch, of all runs or none."""
    records: list[Row] = []
    failed = [run for run in runs if not has_learned(run.progress)]
    if failed:
        _save([run for run in runs if run not in failed])  # they go on without these
        make_record(failed[0].session, failed[0].progress)  # raises the error
    for run in runs:
        record = evaluated_record(run.session, run.progress, stop)
        if record is None:
            return False
        records.append(record)
    for run, record in zip(runs, records, strict=True):
        log_epoch(run.session, run.progress, record, run.hooks)
    accuracies = [record.get("val_accuracy") for record in records]
    written = [run.session.checkpoints for run in runs]
    if any(c.would_be_best(a) for c, a in zip(written, accuracies, strict=True)) or not any(
        c.is_saving for c in written
    ):
        _save(runs, accuracies)
    return True


def _save(runs: Sequence[_Run], accuracies: Sequence[float | None] = ()) -> None:
    """Begins to write a checkpoint of each run that is not saved, once the last ones are there."""
    for run in runs:
        run.session.checkpoints.wait()
    for run, accuracy in itertools.zip_longest(runs, accuracies):
        if not run.progress.is_saved:
            save(run.session, run.progress, accuracy)
