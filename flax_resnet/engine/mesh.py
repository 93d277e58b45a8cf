"""Data parallelism over devices: where arrays lie, and the one jit of each step.

State is replicated, a batch is split over a 1-D mesh with the axis 'data'. A batch that does not
divide over the devices is replicated and computed by each, with the same result. The devices may be
those of several processes, each of which gives its own rows of a batch and runs the same program.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_resnet.engine.dispatch import CompiledSteps, PlacedChunk, eval_chunk, train_chunk
from flax_resnet.engine.steps import EvalStep, TrainStep

AXIS = "data"
GROUP = "group"  # of devices that share BatchNorm's statistics
EVERYWHERE = PartitionSpec()


class DataParallel:
    """The devices, and how steps are compiled for them.

    Attributes:
      mode: 'jit' (one program over the mesh) or 'pmap' (a program a device; in maintenance mode
        in JAX, but exact for this use).
      batch_norm: 'global': statistics over the batch; 'device': over each device's share; a
        number: over the shares of so many devices next to each other.
      devices: the jax.Devices used, in order; those of a process next to each other.
      replicated: the sharding of an array that every device holds.
    """

    def __init__(
        self,
        mode: Literal["jit", "pmap"] = "jit",
        batch_norm: Literal["global", "device"] | int = "global",
        devices: Sequence[Any] | None = None,
    ) -> None:
        self.mode = mode
        self.batch_norm = batch_norm
        found = devices if devices is not None else jax.local_devices()
        self.devices = tuple(sorted(found, key=lambda device: device.process_index))
        self._local = [d for d in self.devices if d.process_index == jax.process_index()]
        self._spans_processes = len(self._local) < len(self.devices)
        grid, self._axes = np.array(self.devices), (AXIS,)
        if isinstance(batch_norm, int):
            grid, self._axes = grid.reshape(-1, batch_norm), (GROUP, AXIS)
        # JAX's default axis type is Explicit, under which shardings become part of types.
        self.mesh = Mesh(grid, self._axes, axis_types=(AxisType.Auto,) * grid.ndim)
        self.replicated = NamedSharding(self.mesh, EVERYWHERE)
        self._split_spec = PartitionSpec(None, self._axes)  # of [steps, batch, ...]
        self._split = NamedSharding(self.mesh, self._split_spec)

    @property
    def num_devices(self) -> int:
        """Number of devices that share a batch."""
        return len(self.devices)

    @property
    def platform(self) -> str:
        """'cpu', 'gpu' or 'tpu'."""
        return self.devices[0].platform

    def replicate(self, tree: Any) -> Any:
        """The tree on every device, in buffers of its own (so that they may be donated)."""
        # By way of the host: of several devices, one would share its buffer with an array on it.
        tree = jax.device_get(tree)
        if not self._spans_processes:
            return jax.device_put(tree, self.replicated, may_alias=False)
        copies = [jax.device_put(tree, device, may_alias=False) for device in self._local]

        def combine(*parts: jax.Array) -> jax.Array:
            shape = parts[0].shape
            return jax.make_array_from_single_device_arrays(shape, self.replicated, list(parts))

        return jax.tree.map(combine, *copies)

    def divides(self, size: int) -> bool:
        """Whether a batch of `size` images can be split over the devices."""
        return size > 0 and size % self.num_devices == 0

    def rows(self, size: int) -> slice:
        """Which images of a batch of `size` this process's devices hold."""
        if not self._spans_processes or not self.divides(size):
            return slice(0, size)
        first, share = self.devices.index(self._local[0]), size // self.num_devices
        return slice(first * share, (first + len(self._local)) * share)

    def place(self, *arrays: np.ndarray, batch_size: int | None = None) -> PlacedChunk:
        """Puts the arrays of a chunk on the devices: [steps, batch, ...] each.

        Args:
          *arrays: of this process's `rows`.
          batch_size: images in a whole batch; None: all of them are this process's.
        """
        steps, size = arrays[0].shape[:2]
        size = size if batch_size is None else batch_size
        split = self.divides(size)
        if split and self.mode == "pmap":  # it maps over an axis as long as there are devices
            arrays = tuple(a.reshape(steps, self.num_devices, -1, *a.shape[2:]) for a in arrays)
        sharding = self._split if split else self.replicated
        if not self._spans_processes:
            return PlacedChunk(jax.device_put(arrays, sharding), steps, size, split)
        placed = tuple(
            jax.make_array_from_process_local_data(sharding, a, (steps, size, *a.shape[2:]))
            for a in arrays
        )
        return PlacedChunk(placed, steps, size, split)

    def compile_train(self, step: TrainStep) -> CompiledSteps:
        """Compiles a training step, to be called with its hyperparameters.

        The state's memory is reused: the one passed in is gone after the call.
        """
        shared = None if self.batch_norm == "device" else AXIS
        axes = self._axes if len(self._axes) > 1 else AXIS
        function = step.function
        mapped = functools.partial(function, axis_name=axes, norm_axis_name=shared)
        inputs = (self.replicated, self.replicated, self._split, self.replicated)
        split = self._jit(train_chunk(function), inputs, self.replicated, donate=(0,))
        if self.mode == "pmap":
            split = self._pmap(train_chunk(mapped), (None, None, 1, None), None, donate=(0,))
        elif self.batch_norm != "global" and self.num_devices > 1:
            split = self._jit(
                jax.shard_map(
                    train_chunk(mapped),
                    mesh=self.mesh,
                    in_specs=(EVERYWHERE, EVERYWHERE, self._split_spec, EVERYWHERE),
                    out_specs=EVERYWHERE,
                    check_vma=False,  # the step averages its gradients itself, as under pmap
                ),
                inputs,
                self.replicated,
                donate=(0,),
            )
        whole = self._jit(train_chunk(function), self.replicated, self.replicated, donate=(0,))
        return CompiledSteps(split, whole, self._hparams(step))

    def compile_together(self, step: TrainStep, seeds: Sequence[int]) -> CompiledSteps:
        """Compiles the training step of runs that differ in their seeds, as one program.

        It takes and returns tuples, with an entry for each run; a chunk has the arrays of each run
        after those of the one before. If the devices divide the runs, each trains its share of
        them; otherwise they share each batch.
        """

        def of_one(
            seed: Any, state: Any, sums: Any, images: jax.Array, labels: jax.Array, hparams: Any
        ) -> Any:
            function = functools.partial(step.function, seed=seed)
            return train_chunk(function)(state, sums, (images, labels), hparams)

        of_all = jax.vmap(of_one, in_axes=(0, 0, 0, 0, 0, None))
        if self.num_devices > 1 and len(seeds) % self.num_devices == 0:
            runs = PartitionSpec(self._axes)
            specs = (*[runs] * 5, EVERYWHERE)
            of_all = jax.shard_map(
                of_all, mesh=self.mesh, in_specs=specs, out_specs=runs, check_vma=False
            )

        def program(states: Any, sums: Any, arrays: Any, hparams: Any, seeds: jax.Array) -> Any:
            images, labels = jnp.stack(arrays[::2]), jnp.stack(arrays[1::2])
            new = of_all(seeds, _stacked(states), _stacked(sums), images, labels, hparams)
            return tuple(_unstacked(tree, len(states)) for tree in new)

        everywhere = self.replicated
        inputs = everywhere, everywhere, self._split, everywhere, everywhere
        split = self._jit(program, inputs, everywhere, donate=(0,))
        whole = self._jit(program, everywhere, everywhere, donate=(0,))
        numbers = self.replicate(np.array(seeds, np.uint32))
        return CompiledSteps(split, whole, self._hparams(step), numbers)

    def _hparams(self, step: TrainStep) -> Any:
        values = {name: np.asarray(value, np.float32) for name, value in step.hparams.items()}
        return self.replicate(values)

    def compile_eval(self, step: EvalStep) -> CompiledSteps:
        """Compiles an evaluation step (variables, sums, batch) -> (sums, logits)."""
        program = eval_chunk(step)
        inputs = (self.replicated, self.replicated, self._split)
        split = self._jit(program, inputs, (self.replicated, self._split))
        if self.mode == "pmap":
            mapped = eval_chunk(functools.partial(step, axis_name=AXIS))
            split = self._pmap(mapped, (None, None, 1), (None, 1))
        return CompiledSteps(split, self._jit(program, self.replicated, self.replicated))

    def _jit(self, program: Callable, inputs: Any, out: Any, donate: tuple[int, ...] = ()) -> Any:
        """One program over the mesh: XLA splits the work and adds what crosses devices."""
        return jax.jit(
            program,
            in_shardings=inputs,
            out_shardings=out,
            donate_argnums=donate,
        )

    def _pmap(
        self, program: Callable, in_axes: Any, out_axes: Any, donate: tuple[int, ...] = ()
    ) -> Any:
        """A program a device, which names the axis where it crosses devices."""
        return jax.pmap(
            program,
            axis_name=AXIS,
            in_axes=in_axes,
            out_axes=out_axes,
            devices=self.devices,
            donate_argnums=donate,
        )


def _stacked(trees: Sequence[Any]) -> Any:
    """One tree of the same trees, each leaf with a first axis over them."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(tree: Any, number: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(operator.itemgetter(place), tree) for place in range(number))
