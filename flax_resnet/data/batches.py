"""Chunks of batches for training and evaluation, and the thread that prepares them.

A chunk holds the batches of consecutive steps that the device takes in one dispatch.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from flax_resnet.data.streaming import PART, Images, StreamedImages
from flax_resnet.data.transforms.table import ImageTable
from flax_resnet.data.transforms.transform import Transform, stream
from flax_resnet.process.machine import usable_cores

T = TypeVar("T")
_PART = 512  # images: fewer make numpy's calls too short for threads, more leave the caches


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """What happens to the image at each position of an epoch.

    Attributes:
        index: the training image at each position; a permutation.
        draws: what each transform drew; the first axis is the position.
    """

    index: Int64[np.ndarray, " n"]
    draws: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Images and labels of one dispatch: this process's rows of batches of `batch_size`."""

    images: UInt8[np.ndarray, "steps rows height width channels"]
    labels: Int32[np.ndarray, "steps rows"]
    batch_size: int


@dataclasses.dataclass(frozen=True)
class EvalChunk:
    """Images and labels of one dispatch of an evaluation; padding where `mask` is False."""

    images: UInt8[np.ndarray, "steps batch height width channels"]
    labels: Int32[np.ndarray, "steps batch"]
    mask: Bool[np.ndarray, "steps batch"]


class TrainBatches:
    """The batches of every epoch, each a pure function of (seed, epoch, step).

    Chunks lie on a grid that starts over with each epoch, so a resumed run takes each step in a
    chunk of the same length as an uninterrupted one. A short last batch is a chunk of its own.
    """

    def __init__(
        self,
        images: Images,
        labels: Int32[np.ndarray, " n"],
        *,
        batch_size: int,
        seed: int,
        transforms: Sequence[Transform],
        drop_last: bool,
        steps_per_chunk: int = 1,
        rows: Callable[[int], slice] = lambda size: slice(0, size),
    ) -> None:
        """Takes the whole set, and which rows of a batch, by its size, this process is to make."""
        if not drop_last:
            batch_size = min(batch_size, len(labels))
        self._labels = labels
        self._batch_size = batch_size
        self._full_steps, rest = divmod(len(labels), batch_size)
        self._last_size = 0 if drop_last else rest
        self.steps_per_chunk = steps_per_chunk
        self._rows = rows
        self._seed = seed
        self._transforms = tuple(transforms)
        self._table = ImageTable(images, transforms)
        self._image_shape = images.shape[1:]
        streams = isinstance(images, StreamedImages)
        self._part = PART if streams else _PART
        self._starters = concurrent.futures.ThreadPoolExecutor(2, "chunk") if streams else None
        self._pool = concurrent.futures.ThreadPoolExecutor(usable_cores(), "augment")

    @property
    def images(self) -> Images:
        """The training images, as they are."""
        return self._table.images

    def share_images(self, other: "TrainBatches") -> None:
        """Reads the other's images from here on, which must be the same: one copy in memory."""
        self._table = other._table

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, including the short one unless it is dropped."""
        return self._full_steps + bool(self._last_size)

    @property
    def sizes(self) -> list[int]:
        """The distinct batch sizes of an epoch: the full one, then the short one if any."""
        return [self._batch_size] + ([self._last_size] if self._last_size else [])

    def images_before(self, step: int) -> int:
        """Images in the first `step` batches of an epoch."""
        return min(step * self._batch_size, len(self._labels))

    def chunk_bounds(self, first_step: int = 0) -> list[tuple[int, int]]:
        """(first step, step after the last) of each chunk of an epoch, starting at `first_step`."""
        grid = range(0, self._full_steps, self.steps_per_chunk)
        edges = {first_step, *grid, self._full_steps, self.steps_per_epoch}
        return list(itertools.pairwise(sorted(e for e in edges if e >= first_step)))

    def distinct_chunks(self) -> list[tuple[int, int]]:
        """The bounds of one chunk of each shape that an epoch has."""
        shapes = {
            (stop - start, self.images_before(stop) - self.images_before(start)): (start, stop)
            for start, stop in self.chunk_bounds()
        }
        return list(shapes.values())

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Chunk]:
        """The chunks of an epoch (counted from 0), starting at its step `first_step`."""
        plan = self.plan(epoch)
        for make in self._in_turn(plan, first_step):
            yield make()

    def _in_turn(self, plan: EpochPlan, first_step: int) -> Iterator[Callable[[], Chunk]]:
        """What makes each chunk; of streamed images, the next one is begun before it is asked for.

        Otherwise threads that are done with a chunk would wait for the slowest of them.
        """
        bounds = self.chunk_bounds(first_step)
        if self._starters is None:
            yield from (functools.partial(self.chunk, plan, *each) for each in bounds)
            return
        begun: collections.deque[concurrent.futures.Future[Chunk]] = collections.deque()
        for each in bounds:
            begun.append(self._starters.submit(self.chunk, plan, *each))
            if len(begun) > 1:
                yield begun.popleft().result
        yield from (chunk.result for chunk in begun)

    def plan(self, epoch: int) -> EpochPlan:
        """Order and augmentation of an epoch."""
        index = stream("order", self._seed, epoch).permutation(len(self._labels))
        draws = (transform.draw(self._seed, epoch, index) for transform in self._transforms)
        return EpochPlan(index, tuple(draws))

    def chunk(self, plan: EpochPlan, start: int, stop: int) -> Chunk:
        """Steps start to stop - 1, all of one batch size, of the epoch that `plan` describes."""
        first, last = self.images_before(start), self.images_before(stop)
        steps = stop - start
        size = (last - first) // steps
        rows = self._rows(size)

        def mine(array: np.ndarray) -> np.ndarray:
            batches = array[first:last].reshape(steps, size, *array.shape[1:])[:, rows]
            return batches.reshape(-1, *array.shape[1:])

        index = mine(plan.index)
        images = self._augment(index, [mine(draws) for draws in plan.draws])
        labels = self._labels[index]
        shape = steps, rows.stop - rows.start
        return Chunk(images.reshape(*shape, *images.shape[1:]), labels.reshape(shape), size)

    def _augment(
        self, index: Int64[np.ndarray, " b"], draws: Sequence[np.ndarray]
    ) -> UInt8[np.ndarray, "b height width channels"]:
        """The images at `index` as drawn; many of them in parts, by several threads."""
        if len(index) <= self._part:
            return self._table.batch(index, draws)
        augmented = np.empty((len(index), *self._image_shape), np.uint8)

        def augment(first: int) -> None:
            part = slice(first, first + self._part)
            augmented[part] = self._table.batch(index[part], [drawn[part] for drawn in draws])

        list(self._pool.map(augment, range(0, len(index), self._part)))
        return augmented


def eval_chunks(
    images: Images,
    labels: Int32[np.ndarray, " n"],
    batch_size: int,
    steps_per_chunk: int = 1,
    rows: slice = slice(None),
) -> Iterator[EvalChunk]:
    """Every image once, in order, in chunks of one shape; the last is padded.

    Args:
        images: the images.
        labels: their labels.
        batch_size: of whole batches.
        steps_per_chunk: batches in a chunk.
        rows: those of each batch that this process is to make.
    """
    size = steps_per_chunk * batch_size
    for start in range(0, len(images), size):
        places = np.arange(start, start + size).reshape(steps_per_chunk, batch_size)[:, rows]
        held = places[places < len(images)]  # in order; what is missing is at the end
        used = np.ones(len(held), np.bool_)
        arrays = [_fill_up(array, places.size) for array in (images[held], labels[held], used)]
        yield EvalChunk(*(a.reshape(*places.shape, *a.shape[1:]) for a in arrays))


def _fill_up(array: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array


def prefetch(make: Callable[[], Iterable[T]], depth: int = 3) -> Generator[T, None, None]:
    """Yields what `make()` yields; a background thread makes up to `depth` items ahead.

    An exception in the thread is raised here. Closing the generator early stops the thread.
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
        except BaseException as error:  # raised again in the consumer, whatever it is
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
