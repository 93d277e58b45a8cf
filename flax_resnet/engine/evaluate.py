"""Loss and accuracy of a set of images, each taken exactly once."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from flax_resnet.data.batches import eval_chunks, prefetch
from flax_resnet.data.streaming import Images
from flax_resnet.engine.dispatch import (
    CompiledSteps,
    InFlight,
    PlacedChunk,
    choose_steps_per_dispatch,
)
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The metrics of an evaluation.

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

    A set that fits into one dispatch stays on the accelerator from its first use on.

    Attributes:
      steps: the compiled step, which evaluators of the same network may share.
    """

    def __init__(
        self,
        steps: CompiledSteps,
        parallel: DataParallel,
        images: Images,
        labels: Int32[np.ndarray, " n"],
        batch_size: int,
        steps_per_dispatch: int | None = None,
    ) -> None:
        """Takes any batch size: it is rounded up to a multiple of the devices."""
        self.steps = steps
        self._parallel = parallel
        self._images = images
        self._labels = labels
        devices = parallel.num_devices
        self._batch_size = -(-min(batch_size, len(images)) // devices) * devices
        num_batches = -(-len(images) // self._batch_size)
        wanted = steps_per_dispatch or choose_steps_per_dispatch(
            parallel.platform, num_batches, self._batch_size * math.prod(images.shape[1:])
        )
        self._steps_per_dispatch = min(wanted, num_batches)
        self._stays = 1 < self._steps_per_dispatch == num_batches
        self._only_chunk: PlacedChunk | None = None

    def compile(self, variables: Any) -> None:
        """Compiles the step, unless that is done."""
        sums = self._parallel.replicate(MetricSums.zeros())
        first = next(iter(self._resident() or self._chunks()))
        self.steps.compile_for(variables, sums, first)

    def __call__(
        self, variables: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Evaluates; None where `should_stop` was true between two dispatches."""
        sums = self._parallel.replicate(MetricSums.zeros())
        in_flight = InFlight(self._parallel.platform, self._steps_per_dispatch)
        for chunk in self._resident() or prefetch(self._chunks):
            if should_stop():
                return None
            sums, _ = self.steps(variables, sums, chunk)
            in_flight.add(sums)
        sums = jax.device_get(sums)
        images = int(sums.images)
        return Evaluation(float(sums.loss) / images, int(sums.correct) / images, images)

    def _resident(self) -> Iterable[PlacedChunk]:
        """The chunk that stays on the devices; empty where the set takes more than one."""
        if self._stays and self._only_chunk is None:
            self._only_chunk = next(self._chunks())
        return [] if self._only_chunk is None else [self._only_chunk]

    def _chunks(self) -> Iterator[PlacedChunk]:
        size = self._batch_size
        rows, steps = self._parallel.rows(size), self._steps_per_dispatch
        for chunk in eval_chunks(self._images, self._labels, size, steps, rows):
            arrays = chunk.images, chunk.labels, chunk.mask
            yield self._parallel.place(*arrays, batch_size=size)
