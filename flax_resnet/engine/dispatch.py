"""What the device takes in one dispatch: a chunk, the batches of one step or of many.

On an accelerator a step of a small network takes less time than the host needs to dispatch the
next, so many are dispatched as one.
"""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from flax_resnet.process.compile_cache import compile_program
from flax_resnet.process.malloc import freed_memory

# Limits of a chunk: bytes of images, and steps. More would hide no more of the host's work, and
# this much is trained in under a second on any accelerator, so that a stop is answered at once.
CHUNK_BYTES = 32 << 20
MAX_STEPS_PER_DISPATCH = 128

# On a CPU; dispatching a step takes a thousandth of this.
LONG_STEP_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class PlacedChunk:
    """The batches of one dispatch, on the devices.

    Attributes:
      arrays: what the step takes (images, labels, ...), in its order: [steps, batch, ...] each;
        split for pmap [steps, devices, batch / devices, ...].
      steps: number of batches.
      batch_size: images in each, on all devices together.
      split: whether each device holds a share of each batch; if not, each holds all of it.
    """

    arrays: tuple[jax.Array, ...]
    steps: int
    batch_size: int
    split: bool


def choose_steps_per_dispatch(platform: str, steps: int, batch_bytes: int) -> int:
    """How many of `steps` consecutive steps to dispatch at a time.

    One on a CPU, where steps take long and gain nothing. Otherwise the most that the limits allow,
    or a divisor of `steps` not much below it, as each length of chunk is compiled.
    """
    most = min(CHUNK_BYTES // batch_bytes, MAX_STEPS_PER_DISPATCH, steps)
    if platform == "cpu" or most <= 1:
        return 1
    divisor = max(d for d in range(1, most + 1) if steps % d == 0)
    return divisor if 2 * divisor > most else most


def train_chunk(step: Callable) -> Callable:
    """A training step's function made to take a chunk.

    Returns:
      (state, sums, arrays, hparams) -> (state, sums)
    """

    def program(state: Any, sums: Any, arrays: tuple[jax.Array, ...], hparams: Any) -> Any:
        def take(carry: Any, batch: Any) -> tuple[Any, None]:
            return step(*carry, batch, hparams), None

        return _over_steps(take, (state, sums), arrays)[0]

    return program


def eval_chunk(step: Callable) -> Callable:
    """An evaluation step made to take a chunk: (variables, sums, arrays) -> (sums, logits)."""

    def program(variables: Any, sums: Any, arrays: tuple[jax.Array, ...]) -> Any:
        return _over_steps(lambda sums, batch: step(variables, sums, batch), sums, arrays)

    return program


def _over_steps(take: Callable, carry: Any, arrays: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    """Like lax.scan, but without a loop around a single step: XLA fuses more of it."""
    if arrays[0].shape[0] > 1:
        return lax.scan(take, carry, arrays)
    carry, output = take(carry, tuple(array[0] for array in arrays))
    return carry, jax.tree.map(lambda leaf: leaf[None], output)


class CompiledSteps:
    """Steps compiled ahead of their first call, once for each shape of chunk."""

    def __init__(self, split: Any, whole: Any, *arguments: Any) -> None:
        """Takes the jitted programs for split chunks and for others, and their last arguments."""
        self._programs = {True: split, False: whole}
        self._arguments = arguments
        self._compiled: dict[Any, Callable] = {}

    def compile_for(self, carry: Any, sums: Any, chunk: PlacedChunk) -> None:
        """Compiles for chunks like this one, unless that is done."""
        if self._key(chunk) not in self._compiled:
            lowered = self.lower(carry, sums, chunk)
            self._compiled[self._key(chunk)] = compile_program(lowered)

    def lower(self, carry: Any, sums: Any, chunk: PlacedChunk) -> jax.stages.Lowered:
        """The program that takes such a chunk, before XLA compiles it."""
        return self._programs[chunk.split].lower(carry, sums, chunk.arrays, *self._arguments)

    def __call__(self, carry: Any, sums: Any, chunk: PlacedChunk) -> Any:
        """Takes the steps; returns as soon as they are dispatched."""
        self.compile_for(carry, sums, chunk)
        return self._compiled[self._key(chunk)](carry, sums, chunk.arrays, *self._arguments)

    @staticmethod
    def _key(chunk: PlacedChunk) -> Any:
        return chunk.split, tuple(array.shape for array in chunk.arrays)


class InFlight:
    """Bounds how far the host runs ahead of the device.

    The device never waits for the host, as a dispatch is always queued, and a stop is answered
    within a few steps, not after everything that was queued. A CPU computes one step at a time
    where steps are long: two would have memory at once.
    """

    def __init__(self, platform: str, steps_per_dispatch: int = 1, *, alone: bool = True) -> None:
        """Takes the steps of a dispatch, and whether one process trains.

        If not, the bound does not follow this process's clock: all must see a NaN at one step.
        """
        self._is_cpu = platform == "cpu"
        self._limit = 0 if self._is_cpu else max(2, 16 // steps_per_dispatch)
        self._short_limit = 2 if alone else self._limit
        self._waiting: collections.deque[Any] = collections.deque()
        self._last_ready = time.monotonic()

    def add(self, result: Any) -> Any:
        """Queues the result of a dispatch; returns that of an old one, waited for, or None.

        Args:
          result: a tree of arrays.
        """
        self._waiting.append(result)
        ready = None
        while len(self._waiting) > self._limit:
            ready = jax.block_until_ready(self._waiting.popleft())
        if self._is_cpu and ready is not None:
            now = time.monotonic()
            is_long = now - self._last_ready > LONG_STEP_SECONDS
            self._last_ready = now
            self._limit = 0 if is_long else self._short_limit
            if is_long and not self._waiting:
                freed_memory.after_step()
        return ready
