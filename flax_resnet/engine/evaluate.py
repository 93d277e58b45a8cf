"""Loss and accuracy over a set of images, each counted exactly once."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from flax_resnet.data.batches import EvalChunk, eval_chunks, prefetch
from flax_resnet.engine.mesh import CompiledSteps, DataParallel, InFlight, PlacedChunk
from flax_resnet.engine.state import MetricSums


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
    """Evaluates on a fixed set of images, on an accelerator in as few dispatches as it can.

    A set that fits into one dispatch stays on the accelerator from the first evaluation on.
    """

    def __init__(
        self,
        steps: CompiledSteps,
        parallel: DataParallel,
        images: UInt8[np.ndarray, "n height width channels"],
        labels: Int32[np.ndarray, " n"],
        batch_size: int,
        steps_per_dispatch: int | None = None,
    ) -> None:
        """Takes any batch size: it is rounded up to a multiple of the devices."""
        self._steps = steps
        self._parallel = parallel
        self._images = images
        self._labels = labels
        devices = parallel.num_devices
        self._batch_size = -(-min(batch_size, len(images)) // devices) * devices
        num_batches = -(-len(images) // self._batch_size)
        wanted = steps_per_dispatch or parallel.steps_per_dispatch(
            num_batches, self._batch_size * images[0].nbytes
        )
        self._steps_per_dispatch = min(wanted, num_batches)
        self._stays = 1 < self._steps_per_dispatch == num_batches
        self._only_chunk: PlacedChunk | None = None

    def compile(self, variables: Any) -> None:
        """Compiles the step, if that is not done yet."""
        sums = self._parallel.replicate(MetricSums.zeros())
        self._steps.compile_for(variables, sums, next(iter(self._placed_chunks())))

    def __call__(
        self, variables: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Evaluates; None where `should_stop` was true between two dispatches."""
        sums = self._parallel.replicate(MetricSums.zeros())
        in_flight = InFlight(self._parallel, self._steps_per_dispatch)
        for chunk in self._placed_chunks():
            if should_stop():
                return None
            sums = self._steps(variables, sums, chunk)
            in_flight.add(sums)
        sums = jax.device_get(sums)
        images = int(sums.images)
        return Evaluation(float(sums.loss) / images, int(sums.correct) / images, images)

    def _placed_chunks(self) -> Iterable[PlacedChunk]:
        if self._only_chunk is not None:
            return [self._only_chunk]
        chunks = eval_chunks(self._images, self._labels, self._batch_size, self._steps_per_dispatch)
        if self._stays:
            self._only_chunk = self._place(next(chunks))
            return [self._only_chunk]
        return prefetch(lambda: map(self._place, chunks))

    def _place(self, chunk: EvalChunk) -> PlacedChunk:
        return self._parallel.place(chunk.images, chunk.labels, chunk.mask)
