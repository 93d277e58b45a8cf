"""Data parallelism over all local devices: placing arrays, compiling steps with jit or pmap.

State is replicated, a batch is split over a 1-D mesh with the axis 'data'. A batch that does not
divide over the devices is replicated and computed whole by each, with the same result.

What is compiled takes a chunk: the batches of one step or of many, taken in one dispatch by
jax.lax.scan. On an accelerator a step of a small network is over sooner than the host has
dispatched the next.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


# Of the images of one dispatch. More hides no more of the host's work; less than a second's
# training on any accelerator, so that a wish to stop is answered at once.
CHUNK_BYTES = 32 << 20
MAX_STEPS = 128


@dataclasses.dataclass(frozen=True)
class PlacedChunk:
    """The batches of one dispatch, on the devices.

    Attributes:
      arrays: images, labels and what else the step takes, in its order, with the steps as the
        first axis (under pmap the second, after the devices).
      steps: number of batches.
      batch_size: images in each, on all devices together.
      split: whether each device holds a share of each batch (else each holds all).
    """

    arrays: tuple[jax.Array, ...]
    steps: int
    batch_size: int
    split: bool


# Called with the name of the mapped axis, and the name over which BatchNorm shares its statistics;
# None: no mapped axis, no sharing.
MakeStep = Callable[[str | None, str | None], Callable]


class DataParallel:
    """The devices, and how steps are compiled for them.

    Attributes:
      mode: 'jit' (one program over the mesh) or 'pmap' (a program a device; in maintenance mode
        in JAX, but exact for this use).
      batch_norm: 'global': statistics over the whole batch; 'device': over each device's share.
      devices: the jax.Devices used, in order.
    """

    def __init__(
        self,
        mode: Literal["jit", "pmap"] = "jit",
        batch_norm: Literal["global", "device"] = "global",
        devices: Sequence[Any] | None = None,
    ) -> None:
        self.mode = mode
        self.batch_norm = batch_norm
        self.devices = tuple(devices if devices is not None else jax.local_devices())
        # JAX's default axis type is Explicit, under which shardings become part of types.
        self.mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self._split = NamedSharding(self.mesh, PartitionSpec(None, AXIS))
        self._by_device = NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def num_devices(self) -> int:
        """Number of devices that share a batch."""
        return len(self.devices)

    def replicate(self, tree: Any) -> Any:
        """The tree on every device, in buffers of its own (so that they may be donated)."""
        return jax.device_put(tree, self.replicated, may_alias=False)

    def steps_per_dispatch(self, steps: int, batch_bytes: int) -> int:
        """How many of `steps` steps in a row to take at a time.

        One on a CPU, whose steps take long and gain nothing. Otherwise the most that keeps within
        CHUNK_BYTES, and a divisor of `steps` if that is not much fewer: each length of chunk is
        compiled.
        """
        most = min(CHUNK_BYTES // batch_bytes, MAX_STEPS, steps)
        if self.devices[0].platform == "cpu" or most <= 1:
            return 1
        divisor = max(d for d in range(1, most + 1) if steps % d == 0)
        return divisor if 2 * divisor > most else most

    def place(self, *arrays: np.ndarray) -> PlacedChunk:
        """Puts the arrays of a chunk on the devices: [steps, batch, ...] each."""
        steps, size = arrays[0].shape[:2]
        if size % self.num_devices or size == 0:
            return PlacedChunk(jax.device_put(arrays, self.replicated), steps, size, split=False)
        if self.mode == "jit":
            return PlacedChunk(jax.device_put(arrays, self._split), steps, size, split=True)
        shares = (self.num_devices, size // self.num_devices)
        arrays = tuple(a.reshape(steps, *shares, *a.shape[2:]).swapaxes(0, 1) for a in arrays)
        return PlacedChunk(jax.device_put(arrays, self._by_device), steps, size, split=True)

    def compile_train(self, make_step: MakeStep) -> "CompiledSteps":
        """Compiles a training step (state, sums, batch) -> (state, sums).

        The state's memory is reused: the one passed in is gone after the call.
        """
        return self._compile(lambda *axes: _train_chunk(make_step(*axes)), donate=(0,))

    def compile_eval(self, make_step: MakeStep) -> "CompiledSteps":
        """Compiles an evaluation step (variables, sums, batch) -> sums."""
        return self._compile(lambda *axes: _eval_chunk(make_step(*axes)), donate=())

    def _compile(self, make_function: MakeStep, donate: tuple[int, ...]) -> "CompiledSteps":
        """Compiles a function (carry, sums, chunk arrays) for split and for whole batches."""
        function = make_function(None, None)
        whole = jax.jit(function, donate_argnums=donate, out_shardings=self.replicated)
        if self.mode == "jit" and (self.batch_norm == "global" or self.num_devices == 1):
            return CompiledSteps(split=whole, whole=whole)
        function = make_function(AXIS, AXIS if self.batch_norm == "global" else None)
        if self.mode == "pmap":
            split = jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(None, None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donate,
            )
        else:
            everywhere, shared_out = PartitionSpec(), PartitionSpec(None, AXIS)
            mapped = jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(everywhere, everywhere, shared_out),
                out_specs=everywhere,
                check_vma=False,  # the step averages its gradients itself, as under pmap
            )
            split = jax.jit(mapped, donate_argnums=donate)
        return CompiledSteps(split=split, whole=whole)


def _train_chunk(step: Callable) -> Callable:
    def train_chunk(state: Any, sums: Any, arrays: tuple[jax.Array, ...]) -> Any:
        return _over_steps(lambda carry, batch: step(*carry, batch), (state, sums), arrays)

    return train_chunk


def _eval_chunk(step: Callable) -> Callable:
    def eval_chunk(variables: Any, sums: Any, arrays: tuple[jax.Array, ...]) -> Any:
        return _over_steps(lambda sums, batch: step(variables, sums, batch), sums, arrays)

    return eval_chunk


def _over_steps(step: Callable[[Any, Any], Any], carry: Any, arrays: tuple[jax.Array, ...]) -> Any:
    if arrays[0].shape[0] == 1:  # no loop for a single step: XLA fuses more of it
        return step(carry, tuple(array[0] for array in arrays))
    return lax.scan(lambda carry, batch: (step(carry, batch), None), carry, arrays)[0]


class CompiledSteps:
    """Steps compiled ahead of their first call, once for each shape of chunk."""

    def __init__(self, split: Any, whole: Any) -> None:
        self._functions = {True: split, False: whole}
        self._compiled: dict[Any, Callable] = {}

    def compile_for(self, carry: Any, sums: Any, chunk: PlacedChunk) -> None:
        """Compiles for chunks like this one; does nothing where that is done."""
        if self._key(chunk) not in self._compiled:
            lowered = self._functions[chunk.split].lower(carry, sums, chunk.arrays)
            self._compiled[self._key(chunk)] = lowered.compile()

    def __call__(self, carry: Any, sums: Any, chunk: PlacedChunk) -> Any:
        """Takes the steps; returns as soon as they are dispatched."""
        self.compile_for(carry, sums, chunk)
        return self._compiled[self._key(chunk)](carry, sums, chunk.arrays)

    @staticmethod
    def _key(chunk: PlacedChunk) -> Any:
        return chunk.split, chunk.arrays[0].shape


class InFlight:
    """Bounds how far the host runs ahead of the device.

    The device never waits for the host (there is always a dispatch queued), and a wish to stop is
    answered within a few steps, not after everything that was queued.
    """

    def __init__(self, parallel: DataParallel, steps_per_dispatch: int = 1) -> None:
        # A CPU takes seconds for a step of a large network, an accelerator milliseconds.
        steps = 2 if parallel.devices[0].platform == "cpu" else 16
        self._limit = max(2, steps // steps_per_dispatch)
        self._waiting: collections.deque[Any] = collections.deque()

    def add(self, result: Any) -> Any:
        """Takes note of a dispatch by its result; returns that of an old one, waited for, or None.

        Args:
          result: a tree of arrays.
        """
        self._waiting.append(result)
        if len(self._waiting) <= self._limit:
            return None
        return jax.block_until_ready(self._waiting.popleft())
