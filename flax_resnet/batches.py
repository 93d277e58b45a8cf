"""Batches of an epoch, padded batches of an evaluation, and the thread that keeps them ready."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from flax_resnet.augment import Augmenter, EpochPlan, plan_epoch

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images and labels of one training step."""

    images: UInt8[np.ndarray, "batch height width channels"]
    labels: Int32[np.ndarray, " batch"]


@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """Images and labels of one evaluation step; where `mask` is False they are padding."""

    images: UInt8[np.ndarray, "batch height width channels"]
    labels: Int32[np.ndarray, " batch"]
    mask: Bool[np.ndarray, " batch"]


class TrainBatches:
    """The batches of every epoch, each a pure function of (seed, epoch, step)."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n height width channels"],
        labels: Int32[np.ndarray, " n"],
        *,
        batch_size: int,
        seed: int,
        crop_padding: int,
        flip: bool,
        drop_last: bool,
    ) -> None:
        self._labels = labels
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._seed = seed
        self._crop_padding = crop_padding
        self._flip = flip
        self._augment = Augmenter(images, padding=crop_padding, flip=flip)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch, the short one included where it is kept."""
        whole, rest = divmod(len(self._labels), self._batch_size)
        return whole if self._drop_last or not rest else whole + 1

    @property
    def sizes(self) -> list[int]:
        """The distinct batch sizes of an epoch: the full one, then the short one if any."""
        last = self._stop(self.steps_per_epoch - 1) - self._start(self.steps_per_epoch - 1)
        full = min(self._batch_size, len(self._labels))
        return [full] if last == full else [full, last]

    def images_before(self, step: int) -> int:
        """Images in the first `step` batches of an epoch."""
        return min(self._start(step), len(self._labels))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 0 on), beginning with its step `first_step`."""
        plan = self.plan(epoch)
        for step in range(first_step, self.steps_per_epoch):
            yield self.batch(plan, step)

    def plan(self, epoch: int) -> EpochPlan:
        """Order and augmentation of an epoch."""
        return plan_epoch(
            len(self._labels),
            seed=self._seed,
            epoch=epoch,
            padding=self._crop_padding,
            flip=self._flip,
        )

    def batch(self, plan: EpochPlan, step: int) -> Batch:
        """Batch `step` of the epoch that `plan` describes."""
        start, stop = self._start(step), self._stop(step)
        return Batch(self._augment(plan, start, stop), self._labels[plan.index[start:stop]])

    def _start(self, step: int) -> int:
        return step * self._batch_size

    def _stop(self, step: int) -> int:
        return min((step + 1) * self._batch_size, len(self._labels))


def eval_batches(
    images: UInt8[np.ndarray, "n height width channels"],
    labels: Int32[np.ndarray, " n"],
    batch_size: int,
) -> Iterator[EvalBatch]:
    """Every image exactly once, in order, in batches of one size; the last padded with zeros."""
    for start in range(0, len(images), batch_size):
        batch = EvalBatch(
            images[start : start + batch_size],
            labels[start : start + batch_size],
            np.ones(min(batch_size, len(images) - start), bool),
        )
        missing = batch_size - len(batch.mask)
        yield _pad(batch, missing) if missing else batch


def _pad(batch: EvalBatch, missing: int) -> EvalBatch:
    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))

    return EvalBatch(pad(batch.images), pad(batch.labels), pad(batch.mask))


def prefetch(make: Callable[[], Iterable[T]], depth: int = 3) -> Generator[T, None, None]:
    """Yields what `make()` yields, up to `depth` items made ahead by a background thread.

    An exception in the thread is raised here. Leaving the generator early stops the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    done = object()

    def offer(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in make():
                if not offer((item, None)):
                    return
            offer((done, None))
        except BaseException as error:  # it belongs to the consumer, whatever it is
            offer((None, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
