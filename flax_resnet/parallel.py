"""Data parallelism over all local devices: placing arrays, compiling steps with jit or pmap.

State is replicated, a batch is split over a 1-D mesh with the axis 'data'. A batch that does not
divide over the devices is replicated and computed whole by each, with the same result.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """A batch on the devices.

    Attributes:
      arrays: images, labels and what else the step takes, in its order.
      split: whether each device holds a share (else each holds all).
    """

    arrays: tuple[jax.Array, ...]
    split: bool

    @property
    def size(self) -> int:
        """Images in the batch, on all devices together."""
        return self.arrays[1].size

    @property
    def key(self) -> tuple[bool, tuple[int, ...]]:
        """What one compilation serves."""
        return self.split, self.arrays[0].shape


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
        self._split = NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def num_devices(self) -> int:
        """Number of devices that share a batch."""
        return len(self.devices)

    def replicate(self, tree: Any) -> Any:
        """The tree on every device, in buffers of its own (so that they may be donated)."""
        return jax.device_put(tree, self.replicated, may_alias=False)

    def place(self, *arrays: np.ndarray) -> PlacedBatch:
        """Puts the arrays of a batch on the devices; the first axis is the batch's."""
        size = len(arrays[0])
        if size % self.num_devices or size == 0:
            return PlacedBatch(jax.device_put(arrays, self.replicated), split=False)
        if self.mode == "pmap":  # takes the devices as a leading axis
            share = size // self.num_devices
            arrays = tuple(a.reshape(self.num_devices, share, *a.shape[1:]) for a in arrays)
        return PlacedBatch(jax.device_put(arrays, self._split), split=True)

    def compile(
        self, make_step: Callable[[str | None, str | None], Callable], *, donate_state: bool
    ) -> "ParallelStep":
        """Compiles a step (carry, sums, batch arrays) for split and for replicated batches.

        Args:
          make_step: called with the name of the mapped axis, and the name over which BatchNorm
            shares its statistics; None: no mapped axis, no sharing.
          donate_state: the step may overwrite its first argument.
        """
        donate = (0,) if donate_state else ()
        whole = jax.jit(make_step(None, None), donate_argnums=donate, out_shardings=self.replicated)
        if self.mode == "jit" and (self.batch_norm == "global" or self.num_devices == 1):
            return ParallelStep(split=whole, whole=whole)
        step = make_step(AXIS, AXIS if self.batch_norm == "global" else None)
        if self.mode == "pmap":
            split = jax.pmap(
                step,
                axis_name=AXIS,
                in_axes=(None, None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donate,
            )
        else:
            everywhere, shared_out = PartitionSpec(), PartitionSpec(AXIS)
            mapped = jax.shard_map(
                step,
                mesh=self.mesh,
                in_specs=(everywhere, everywhere, shared_out),
                out_specs=everywhere,
                check_vma=False,  # the step averages its gradients itself, as under pmap
            )
            split = jax.jit(mapped, donate_argnums=donate)
        return ParallelStep(split=split, whole=whole)


class ParallelStep:
    """A step compiled ahead of its first call, once for each batch shape."""

    def __init__(self, split: Any, whole: Any) -> None:
        self._functions = {True: split, False: whole}
        self._compiled: dict[Any, Callable] = {}

    def compile_for(self, carry: Any, sums: Any, batch: PlacedBatch) -> None:
        """Compiles for batches placed like this one; does nothing where that is done."""
        if batch.key not in self._compiled:
            lowered = self._functions[batch.split].lower(carry, sums, batch.arrays)
            self._compiled[batch.key] = lowered.compile()

    def __call__(self, carry: Any, sums: Any, batch: PlacedBatch) -> Any:
        """Runs the step; returns as soon as it is dispatched."""
        self.compile_for(carry, sums, batch)
        return self._compiled[batch.key](carry, sums, batch.arrays)


class InFlight:
    """Bounds how far the host runs ahead of the device.

    The device never waits for the host (there is always a step queued), and a wish to stop is
    answered within a few steps, not after everything that was queued.
    """

    def __init__(self, parallel: DataParallel) -> None:
        # A CPU takes seconds for a step of a large network, an accelerator milliseconds.
        self._limit = 2 if parallel.devices[0].platform == "cpu" else 16
        self._waiting: collections.deque[jax.Array] = collections.deque()

    def add(self, result: jax.Array) -> None:
        """Takes note of a dispatched step by one of its results; waits for an old one if needed."""
        self._waiting.append(result)
        if len(self._waiting) > self._limit:
            self._waiting.popleft().block_until_ready()
