"""Where a run is: all that training changes."""

import dataclasses
import time

import jax

from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.runs.checkpoints import Saved


@dataclasses.dataclass
class Progress:
    """The state on the devices and the place in the run.

    Attributes:
      state: the training state; the step in it may be behind `step` only while the device works.
      sums: metric sums over the steps of the running epoch.
      step: steps taken since the start of the run.
      awaiting_evaluation: an epoch ends at this step and has not been evaluated yet.
      seconds: training time of the running epoch, up to the last `stop_clock`.
      saved: (step, awaiting_evaluation) of the newest checkpoint; None: there is none.
      last_save: time.monotonic() of it, or of the start.
    """

    state: TrainState
    sums: MetricSums
    step: int = 0
    awaiting_evaluation: bool = False
    seconds: float = 0.0
    saved: tuple[int, bool] | None = None
    last_save: float = dataclasses.field(default_factory=time.monotonic)
    _clock: float = dataclasses.field(default_factory=time.monotonic)

    @classmethod
    def resumed(cls, saved: Saved, step: int) -> "Progress":
        """The place that a checkpoint was saved at."""
        waiting = not saved.evaluated
        return cls(saved.state, saved.sums, step, waiting, saved.seconds, (step, waiting))

    @property
    def is_saved(self) -> bool:
        """Whether the newest checkpoint is of this very place (or there is nothing to save)."""
        return (self.step, self.awaiting_evaluation) == (self.saved or (0, False))

    @property
    def seconds_unsaved(self) -> float:
        """Since the newest checkpoint, or the start."""
        return time.monotonic() - self.last_save

    def to_save(self) -> Saved:
        """What a checkpoint of this place holds."""
        return Saved(self.state, self.sums, self.seconds, evaluated=not self.awaiting_evaluation)

    def start_clock(self) -> None:
        """Begins to count training time."""
        self._clock = time.monotonic()

    def stop_clock(self) -> None:
        """Adds the time since the clock started, the device's work included."""
        jax.block_until_ready(self.sums)
        self.seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()

    def begin_epoch(self, parallel: DataParallel) -> None:
        """Takes an epoch as evaluated: the next one's sums start from nothing."""
        self.awaiting_evaluation = False
        self.sums = parallel.replicate(MetricSums.zeros())
        self.seconds = 0.0
