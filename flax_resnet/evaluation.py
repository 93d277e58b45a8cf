"""Loss and accuracy over a set of images, each counted exactly once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from flax_resnet.batches import EvalBatch, eval_batches, prefetch
from flax_resnet.parallel import DataParallel, InFlight, ParallelStep, PlacedBatch
from flax_resnet.train_state import MetricSums


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures of an evaluation.

    Attributes:
      loss: mean cross-entropy over the images.
      accuracy: fraction of images whose largest logit is the label's.
      images: how many were counted.
    """

    loss: float
    accuracy: float
    images: int


class Evaluator:
    """Evaluates on a fixed set of images."""

    def __init__(
        self,
        step: ParallelStep,
        parallel: DataParallel,
        images: UInt8[np.ndarray, "n height width channels"],
        labels: Int32[np.ndarray, " n"],
        batch_size: int,
    ) -> None:
        """Takes any batch size: it is rounded up to a multiple of the devices."""
        self._step = step
        self._parallel = parallel
        self._images = images
        self._labels = labels
        devices = parallel.num_devices
        self._batch_size = -(-min(batch_size, len(images)) // devices) * devices

    def compile(self, variables: Any) -> None:
        """Compiles the step, if that is not done yet."""
        sums = self._parallel.replicate(MetricSums.zeros())
        self._step.compile_for(variables, sums, self._place(next(self._batches())))

    def __call__(
        self, variables: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Evaluates; None where `should_stop` was true between two batches."""
        sums = self._parallel.replicate(MetricSums.zeros())
        in_flight = InFlight(self._parallel)
        for batch in prefetch(lambda: map(self._place, self._batches())):
            if should_stop():
                return None
            sums = self._step(variables, sums, batch)
            in_flight.add(sums.loss)
        sums = jax.device_get(sums)
        images = int(sums.images)
        return Evaluation(float(sums.loss) / images, int(sums.correct) / images, images)

    def _batches(self) -> Any:
        return eval_batches(self._images, self._labels, self._batch_size)

    def _place(self, batch: EvalBatch) -> PlacedBatch:
        return self._parallel.place(batch.images, batch.labels, batch.mask)
