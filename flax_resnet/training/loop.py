"""The training loop: epochs, evaluation, figures, checkpoints, and going on where a run stopped."""

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from ml_collections import ConfigDict

from flax_resnet.config.build import (
    abstract_checkpoint,
    build_eval_step,
    build_model,
    build_optimizer,
    build_schedule,
    build_train_step,
)
from flax_resnet.config.conv_choice import CONVOLVE, choose_conv
from flax_resnet.config.load import check_image_size
from flax_resnet.data.batches import Chunk, TrainBatches, prefetch
from flax_resnet.data.dataset import Dataset
from flax_resnet.data.load import load_dataset
from flax_resnet.data.transforms import build_transforms
from flax_resnet.engine.evaluate import Evaluation, Evaluator
from flax_resnet.engine.mesh import CompiledSteps, DataParallel, InFlight, PlacedChunk
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.inference.model import load_trained, start_from
from flax_resnet.models.summary import format_summary, summarize
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text
from flax_resnet.process.profiler import Profile
from flax_resnet.process.signals import StopRequest, while_answering_signals
from flax_resnet.runs.checkpoints import Checkpoints, Saved
from flax_resnet.runs.folder import DataInfo, RunFolder
from flax_resnet.runs.metrics_log import MetricsLog, Row, read_metrics
from flax_resnet.runs.reference_log import read_reference
from flax_resnet.training.console import EpochProgress

Log = Callable[[str], None]

LONGEST_PRINTED_SUMMARY = 60  # lines; a deeper network is listed in summary.txt alone
PLOT_SHARE = 0.05  # of the time at most, where epochs are short


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
    profile_dir: Path | None = None,
    until_epoch: int | None = None,
    stop: StopRequest | None = None,
    log: Log = print,
) -> Outcome:
    """Trains, or goes on training, the run in `workdir` until it is finished or stopped.

    Args:
      config: checked by config.validate.
      workdir: folder of the run, made where it is missing.
      devices: jax.Devices to share each batch; None: all local ones.
      cache_dir: where decoded images are kept; None: the user's cache folder.
      profile_dir: where to write a trace of a few steps; None: nowhere.
      until_epoch: the epoch to end after, so that a part of a run is the start of the whole one
        (a schedule still spans config.num_epochs); None: the last.
      stop: entered by the caller, who trains several runs and stops with them; None: its own.
      log: takes the lines for people.

    Raises:
      UserError: anything the user can put right.
    """
    if config.reference_log is not None:
        read_reference(config.reference_log)  # a broken one is known now, not after an epoch
    run = RunFolder(workdir)
    run.lock()
    try:
        run.claim(config)
        parallel = DataParallel(config.parallel, config.batch_norm, devices)
        listening = StopRequest() if stop is None else contextlib.nullcontext(stop)
        with listening as stop, Trainer(config, run, parallel, until_epoch, log) as trainer:
            if trainer.finished:
                log(f"{run.path} is finished: {describe_row(read_metrics(run.metrics_file)[-1])}")
                return Outcome(None, trainer.step)
            trainer.load(cache_dir)
            with stop.remembered():
                trainer.train(stop, Profile(profile_dir, log))
        if not stop or trainer.finished:
            return Outcome(None, trainer.step)
        log(f"saved at step {trainer.step} in {run.path}; run the same command again to go on")
        return Outcome(stop.signum, trainer.step)
    finally:
        run.unlock()


class Trainer:
    """One process's share of a run: the state on the devices and the place in the run.

    Attributes:
      step: steps taken since the start of the run.
    """

    def __init__(
        self,
        config: ConfigDict,
        run: RunFolder,
        parallel: DataParallel,
        until_epoch: int | None = None,
        log: Log = print,
    ) -> None:
        self._log = log
        self._config = config
        self._last_epoch = min(until_epoch or config.num_epochs, config.num_epochs)
        self._run = run
        self._parallel = parallel
        self._checkpoints = Checkpoints(
            run.checkpoints, keep_best=config.validation_split > 0, log=log
        )
        latest = self._checkpoints.latest
        self.step = latest.step if latest else 0
        self._evaluated = latest.evaluated if latest else True  # the last whole epoch
        self._saved_as = (self.step, self._evaluated)  # of the newest checkpoint
        self._seconds = 0.0  # training time of the running epoch
        self._last_save = time.monotonic()
        self._next_plot = 0.0  # when drawing is due
        self._plotted = True  # the plots show every line

    @property
    def finished(self) -> bool:
        """Whether the last epoch to train is trained, evaluated and saved."""
        if not self._run.metrics_file.exists():
            return False
        rows = read_metrics(self._run.metrics_file)
        return (
            bool(rows)
            and rows[-1]["epoch"] >= self._last_epoch
            and self._saved_as == (rows[-1]["step"], True)
        )

    def load(self, cache_dir: Path | None) -> None:
        """Brings images and state into memory, and compiles."""
        config = self._config
        dataset = load_dataset(
            config.dataset,
            data_dir=config.data_dir,
            archive=config.archive,
            image_size=config.image_size,
            cache_dir=cache_dir,
            log=self._log,
        )
        check_image_size(config, dataset.image_shape)
        self._take_data(dataset)
        self._schedule = build_schedule(config, self._batches.steps_per_epoch)
        self._build_train_steps(dataset)
        self._describe(dataset)
        self._restore_or_init(dataset)
        self._checkpoints.check_space(self._to_save())
        self._compile()
        # The line of an epoch that is about to be evaluated again is made again, too.
        logged = self.step if self._evaluated else self.step - 1
        self._metrics_log = MetricsLog(self._run, logged)

    def train(self, stop: StopRequest, profile: Profile) -> None:
        """Trains until the run is finished or `stop` is set; everything is saved on return."""
        self._profile = profile
        # Over all epochs: while one is evaluated, the images of the next are made.
        chunks = prefetch(self._chunks)
        try:
            while True:
                if not self._evaluated and not self._finish_epoch(stop):
                    break
                epoch = self.step // self._batches.steps_per_epoch
                if epoch >= self._last_epoch or not self._train_epoch(epoch, chunks, stop):
                    break
            if (self.step, self._evaluated) != self._saved_as:
                self._save()
            if not self._plotted:
                self._plot()
        finally:
            chunks.close()
            profile.close()
            self._metrics_log.close()
            gc.unfreeze()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Waits for what is being saved; after a second Ctrl-C for nothing."""
        if error_type is None or not issubclass(error_type, KeyboardInterrupt):
            self._checkpoints.close()

    def _take_data(self, dataset: Dataset) -> None:
        """Splits the images over training, validation and test; checks that they are the run's."""
        config = self._config
        digest = dataset.digest
        dataset = dataset.first(config.train_images, config.test_images)
        splits = {"test": (dataset.test_images, dataset.test_labels)}
        if config.validation_split:
            dataset, images, labels = dataset.split_validation(config.validation_split, config.seed)
            splits["val"] = images, labels
        self._steps_per_dispatch = config.steps_per_dispatch or self._parallel.steps_per_dispatch(
            len(dataset.train_labels) // config.batch_size,
            config.batch_size * dataset.train_images[0].nbytes,
        )
        self._batches = TrainBatches(
            dataset.train_images,
            dataset.train_labels,
            batch_size=config.batch_size,
            seed=config.seed,
            transforms=build_transforms(crop_padding=config.crop_padding, flip=config.flip),
            drop_last=config.drop_last,
            steps_per_chunk=self._steps_per_dispatch,
        )
        if not self._batches.steps_per_epoch:
            raise UserError(
                f"config.drop_last leaves no step: batch_size is {config.batch_size}, and there "
                f"are {len(dataset.train_labels)} training images"
            )
        eval_steps = self._parallel.compile_eval(build_eval_step(config, dataset.num_classes))
        self._evaluators = {
            name: Evaluator(
                eval_steps,
                self._parallel,
                images,
                labels,
                config.eval_batch_size,
                config.steps_per_dispatch,
            )
            for name, (images, labels) in splits.items()
        }
        self._data = DataInfo(
            class_names=dataset.class_names,
            image_shape=dataset.image_shape,
            train_images=len(dataset.train_labels),
            test_images=len(dataset.test_labels),
            val_images=config.validation_split,
            digest=digest,
            source=dataset.source,
        )
        self._run.claim_data(self._data)

    def _build_train_steps(self, dataset: Dataset) -> None:
        """The training step for each batch size, not compiled yet."""
        config, batches = self._config, self._batches
        self._conv = choose_conv(
            config,
            dataset.image_shape,
            config.num_epochs * batches.images_before(batches.steps_per_epoch),
            self._parallel.devices,
        )

        def build(conv: str) -> CompiledSteps:
            return self._parallel.compile_train(
                build_train_step(
                    config, dataset.num_classes, batches.steps_per_epoch, CONVOLVE[conv]
                )
            )

        # The short last batch takes the convolutions that compile fast: it is one step an epoch.
        full, *short = batches.sizes
        self._train_steps = {full: build(self._conv)}
        for size in short:
            self._train_steps[size] = build("native")

    def _describe(self, dataset: Dataset) -> None:
        config, data, log = self._config, self._data, self._log
        model = build_model(config, dataset.num_classes)
        summary = summarize(model, dataset.image_shape)
        text = format_summary(summary, config.model)
        write_text(self._run.summary_file, text + "\n")
        if len(text.splitlines()) <= LONGEST_PRINTED_SUMMARY:
            log(text)
        validation = f" / {data.val_images:,} validation" if data.val_images else ""
        devices = self._parallel.devices
        log(
            f"{config.model}, {summary.params:,} parameters, on {data.source}: "
            f"{data.train_images:,} training{validation} / {data.test_images:,} test images of "
            f"{len(data.class_names)} classes"
        )
        log(
            f"{len(devices)} x {devices[0].device_kind}, {config.dtype}, {config.parallel}, "
            f"{self._conv} convolutions; "
            f"{config.num_epochs} epochs of {self._batches.steps_per_epoch} steps; "
            f"files in {self._run.path}"
        )
        if config.batch_size % len(devices):
            log(
                f"note: batch_size {config.batch_size} does not divide over {len(devices)} "
                "devices, so each computes the whole batch; take a multiple to share it"
            )

    def _restore_or_init(self, dataset: Dataset) -> None:
        config, steps, log = self._config, self._batches.steps_per_epoch, self._log
        if self._checkpoints.latest is not None:
            abstract = abstract_checkpoint(config, dataset.num_classes, dataset.image_shape)
            saved = self._checkpoints.restore(
                Saved(*abstract, seconds=0.0, evaluated=True), self._parallel.replicated
            )
            self._state, self._sums, self._seconds = saved.state, saved.sums, saved.seconds
            epoch, step = divmod(self.step, steps)
            log(f"resuming from step {self.step} (epoch {epoch + 1}, {step} of {steps} steps done)")
            return
        state = init_state(
            build_model(config, dataset.num_classes),
            build_optimizer(config, steps),
            dataset.image_shape,
            config.seed,
        )
        if config.init_from is not None:
            trained = load_trained(config.init_from)
            state = start_from(state, dataset.class_names, trained)
            kept = (
                "all weights"
                if trained.data.class_names == dataset.class_names
                else "all weights but the head's"
            )
            log(f"starting from {config.init_from}, step {trained.step}: {kept}")
        self._state = self._parallel.replicate(state)
        self._reset_sums()

    def _reset_sums(self) -> None:
        self._sums = self._parallel.replicate(MetricSums.zeros())
        self._seconds = 0.0

    def _compile(self) -> None:
        """Compiles before the clock starts, for the full and for the short batch."""
        start = time.monotonic()
        while_answering_signals(self._compile_steps)
        self._log(f"compiled in {time.monotonic() - start:.1f} s")

    def _compile_steps(self) -> None:
        plan = self._batches.plan(0)
        for bounds in self._batches.distinct_chunks():
            chunk = self._place(self._batches.chunk(plan, *bounds))
            self._train_steps[chunk.batch_size].compile_for(self._state, self._sums, chunk)
        for evaluator in self._evaluators.values():
            evaluator.compile(self._state.variables)

    def _place(self, chunk: Chunk) -> PlacedChunk:
        return self._parallel.place(chunk.images, chunk.labels)

    def _chunks(self) -> Iterator[PlacedChunk]:
        """The chunks from here to the last epoch's end, on the devices."""
        epoch, step = divmod(self.step, self._batches.steps_per_epoch)
        while epoch < self._last_epoch:
            yield from map(self._place, self._batches.epoch(epoch, step))
            epoch, step = epoch + 1, 0

    def _train_epoch(self, epoch: int, chunks: Iterator[PlacedChunk], stop: StopRequest) -> bool:
        """Trains the rest of an epoch (from 0 on); False: stopped before its end."""
        steps = self._batches.steps_per_epoch
        epoch_step = first_step = self.step - epoch * steps
        in_flight = InFlight(self._parallel, self._steps_per_dispatch)
        progress = EpochProgress(
            f"epoch {epoch + 1}/{self._config.num_epochs}",
            total_steps=steps,
            first_step=first_step,
            first_images=self._batches.images_before(first_step),
        )
        self._clock = time.monotonic()
        while epoch_step < steps and not stop:
            chunk = next(chunks)
            self._profile.before_dispatch(self._sums)
            train_steps = self._train_steps[chunk.batch_size]
            self._state, self._sums = train_steps(self._state, self._sums, chunk)
            self.step += chunk.steps
            epoch_step += chunk.steps
            self._evaluated = epoch_step < steps
            done = in_flight.add(self._sums)
            if done is not None and self._must_stop_at(done):
                break
            progress.note(epoch_step, self._sums)
            if epoch_step < steps and self._save_is_due(chunk.steps):
                self._stop_clock()
                if self._must_stop_at(self._sums):
                    break
                self._save()
                self._clock = time.monotonic()
        self._stop_clock()
        progress.close()
        if self._must_stop_at(self._sums):
            self._stop_before_non_finite(epoch)
        return not self._evaluated

    def _stop_clock(self) -> None:
        """Adds the time since the clock started, the device's work included."""
        jax.block_until_ready(self._sums)
        self._seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()

    def _must_stop_at(self, sums: MetricSums) -> bool:
        """Whether a step was not finite; to be asked of sums that the device has finished."""
        return self._config.on_nan == "stop" and int(sums.non_finite) > 0

    def _stop_before_non_finite(self, epoch: int) -> NoReturn:
        """Saves the state before the step that was not finite, where the device has stopped."""
        self.step = int(self._state.step)
        epoch_step = self.step - epoch * self._batches.steps_per_epoch
        self._evaluated = True  # the epoch before this one
        none = self._parallel.replicate(MetricSums.zeros().non_finite)
        self._sums = dataclasses.replace(self._sums, non_finite=none)
        if (self.step, self._evaluated) != self._saved_as:
            self._save()
        self._checkpoints.wait()
        raise UserError(
            f"step {self.step + 1} (epoch {epoch + 1}, step {epoch_step + 1} of it): the loss or a "
            f"gradient is NaN or infinite; the state before it, of step {self.step}, is saved in "
            f"{self._run.path}. Lower config.learning_rate in another --workdir, or go on without "
            "such steps: config.on_nan=skip"
        )

    def _save_is_due(self, steps: int) -> bool:
        """Whether the last `steps` steps passed a multiple of checkpoint_every_steps, or time."""
        every = self._config.checkpoint_every_steps
        by_steps = every is not None and self.step // every > (self.step - steps) // every
        minutes = (time.monotonic() - self._last_save) / 60
        return by_steps or minutes >= self._config.checkpoint_every_minutes

    def _finish_epoch(self, stop: StopRequest) -> bool:
        """Evaluates, logs and saves a trained epoch; False: stopped before that."""
        evaluations: dict[str, Evaluation] = {}
        for name, evaluator in self._evaluators.items():
            evaluation = evaluator(self._state.variables, lambda: bool(stop))
            if evaluation is None:
                return False
            evaluations[name] = evaluation
        row = self._row(evaluations)
        # The line first: after a crash in between, resuming drops it and makes it again.
        self._metrics_log.append(row)
        self._log(describe_row(row, self._config.num_epochs))
        self._metrics_log.add_events(row)
        self._evaluated = True
        self._reset_sums()
        # An epoch shorter than the writing of a checkpoint goes without, unless it is the best.
        val_accuracy = row.get("val_accuracy")
        if self._checkpoints.would_be_best(val_accuracy) or not self._checkpoints.is_saving:
            self._save(val_accuracy)
        self._plotted = False
        if time.monotonic() >= self._next_plot:
            self._plot()
        self._collect_garbage()
        return True

    def _collect_garbage(self) -> None:
        """Frees what saving leaves in cycles.

        Python by itself does so once in a hundred epochs, as programs compiled by JAX are made of
        so many objects. They are left out here: they live as long as the training.
        """
        gc.collect()
        if gc.get_freeze_count() == 0:
            gc.freeze()

    def _row(self, evaluations: dict[str, Evaluation]) -> Row:
        sums = jax.device_get(self._sums)
        epoch = self.step // self._batches.steps_per_epoch
        if not int(sums.batches):
            raise UserError(
                f"epoch {epoch}: the loss or a gradient of every step was NaN or infinite, so "
                "nothing was learnt: lower config.learning_rate in another --workdir"
            )
        row = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": float(sums.loss) / int(sums.batches),
            "train_accuracy": int(sums.correct) / int(sums.images),
        }
        for name, evaluation in evaluations.items():
            row |= {f"{name}_loss": evaluation.loss, f"{name}_accuracy": evaluation.accuracy}
        if self._config.on_nan == "skip":
            row["skipped_steps"] = int(sums.non_finite)
        return row | {
            "learning_rate": float(self._schedule(self.step - 1)),
            "seconds": self._seconds,
            "images_per_second": int(sums.images) / self._seconds,
        }

    def _save(self, val_accuracy: float | None = None) -> None:
        self._checkpoints.save(self._to_save(), self.step, val_accuracy=val_accuracy)
        self._saved_as = (self.step, self._evaluated)
        self._last_save = time.monotonic()

    def _to_save(self) -> Saved:
        return Saved(self._state, self._sums, self._seconds, self._evaluated)

    def _plot(self) -> None:
        # Imported here: matplotlib takes a second, and the first epoch need not wait for it.
        from flax_resnet.plots import curves as plots

        start = time.monotonic()
        plots.draw_run(self._run, self._config.reference_log)
        end = time.monotonic()
        self._next_plot = end + (end - start) / PLOT_SHARE
        self._plotted = True


def describe_row(row: Row, num_epochs: int | None = None) -> str:
    """The figures of an epoch in one line."""

    def figures(name: str) -> str:
        loss, accuracy = row[f"{name}_loss"], row[f"{name}_accuracy"]
        return f"{name} {'nan' if loss is None else f'{loss:.4f}'} {accuracy:.2%}"

    total = f"/{num_epochs}" if num_epochs else ""
    sets = "   ".join(figures(name) for name in ("train", "val", "test") if f"{name}_loss" in row)
    skipped = f"   {row['skipped_steps']} steps skipped" if row.get("skipped_steps") else ""
    return (
        f"epoch {row['epoch']}{total}   {sets}   lr {row['learning_rate']:.3g}   "
        f"{row['seconds']:.1f} s   {row['images_per_second']:,.0f} images/s{skipped}"
    )
