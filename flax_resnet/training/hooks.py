"""What happens beside training: called at the end of a dispatch and of an epoch."""

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

from flax_resnet.process.errors import UserError
from flax_resnet.process.profiler import Profile
from flax_resnet.runs.metrics_log import Events, Row, describe_row
from flax_resnet.training.bar import EpochProgress
from flax_resnet.training.progress import Progress
from flax_resnet.training.session import Session

logger = logging.getLogger(__name__)

PLOT_SHARE = 0.05  # of the time at most, where epochs are short


class Hook:
    """Does nothing; a subclass overrides what it needs. Its `sums` may still be on their way."""

    def start(self, session: Session, progress: Progress) -> None:
        """Called once, before the first step."""

    def before_epoch(self, session: Session, progress: Progress) -> None:
        """Called before the first dispatch of an epoch, or of what is left of it."""

    def after_dispatch(self, session: Session, progress: Progress) -> None:
        """Called after each dispatch of training steps, without waiting for the device."""

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Called when an epoch is evaluated and its record is in metrics.jsonl."""

    def end(self, session: Session, progress: Progress) -> None:
        """Called once everything is saved, at the run's end or a stop; not after an error."""

    def close(self) -> None:
        """Called last, however training ended."""


def default_hooks() -> tuple[Hook, ...]:
    """Progress on the terminal, a line per epoch, TensorBoard's events, plots."""
    return Bar(), EpochLine(), TensorBoard(), Plots()


class Bar(Hook):
    """A live bar on a terminal, else a plain line now and then."""

    def __init__(self) -> None:
        self._bar: EpochProgress | None = None
        self._first_step = 0  # of the epoch

    def before_epoch(self, session: Session, progress: Progress) -> None:
        """Shows an epoch's bar."""
        steps = session.batches.steps_per_epoch
        epoch, step = divmod(progress.step, steps)
        self._first_step = progress.step - step
        self._bar = EpochProgress(
            f"epoch {epoch + 1}/{session.num_epochs}",
            total_steps=steps,
            first_step=step,
            first_images=session.batches.images_before(step),
        )

    def after_dispatch(self, session: Session, progress: Progress) -> None:
        """Shows the newest step that the device has finished."""
        if self._bar is not None:
            self._bar.note(progress.step - self._first_step, progress.sums)
            if progress.step - self._first_step == session.batches.steps_per_epoch:
                self.close()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class EpochLine(Hook):
    """Logs the metrics of each epoch in one line."""

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Logs it."""
        logger.info(describe_row(record, session.num_epochs))


class _Extra(Hook):
    """Something that a run can do without: the first failure is logged, the run goes on."""

    def __init__(self) -> None:
        self._failed = False

    def attempt(self, what: str, function: Callable[[], object]) -> None:
        """Calls a function unless it failed before."""
        if self._failed:
            return
        try:
            function()
        except (UserError, OSError) as error:
            self._failed = True
            logger.warning("no more %s: %s; training continues", what, error)


class TensorBoard(_Extra):
    """Writes each epoch's metrics as events."""

    def __init__(self) -> None:
        super().__init__()
        self._events: Events | None = None

    def start(self, session: Session, progress: Progress) -> None:
        """Continues after the epochs that are there."""
        self._events = Events(session.run, session.metrics.step)

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Adds the epoch."""
        events = self._events
        if events is not None:
            self.attempt("TensorBoard events", lambda: events.add(record))

    def close(self) -> None:
        """Ends the writer."""
        if self._events is not None:
            self._events.close()


class Plots(_Extra):
    """Draws loss.png and accuracy.png, in `share` of the time at most, and at the end."""

    def __init__(self, share: float = PLOT_SHARE) -> None:
        super().__init__()
        self._share = share
        self._next = 0.0  # when drawing is due
        self._is_behind = False

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Draws, where that is due."""
        self._is_behind = True
        if time.monotonic() >= self._next:
            self._draw(session)

    def end(self, session: Session, progress: Progress) -> None:
        """Draws what is missing."""
        if self._is_behind:
            self._draw(session)

    def _draw(self, session: Session) -> None:
        # Imported here: matplotlib takes a second, and the first epoch need not wait for it.
        from flax_resnet.plots import curves

        start = time.monotonic()
        self.attempt("plots", lambda: curves.draw_run(session.run, session.reference_log))
        end = time.monotonic()
        self._next = end + (end - start) / self._share
        self._is_behind = False


class Trace(Hook):
    """Writes a profile of a few dispatches under a folder."""

    def __init__(self, folder: Path) -> None:
        self._profile = Profile(folder)

    def after_dispatch(self, session: Session, progress: Progress) -> None:
        """Starts and ends the trace when their dispatches have come."""
        self._profile.after_dispatch(progress.sums)

    def close(self) -> None:
        """Ends a trace that the run was too short for."""
        self._profile.close()


class CollectGarbage(Hook):
    """Frees what saving leaves in cycles, once per epoch. For a process that only trains.

    Python by itself does so once in a hundred epochs, as programs compiled by JAX are made of so
    many objects. They are left out here: they live as long as the process.
    """

    def after_epoch(self, session: Session, progress: Progress, record: Row) -> None:
        """Collects; the first time, what is left is frozen."""
        gc.collect()
        if gc.get_freeze_count() == 0:
            gc.freeze()
