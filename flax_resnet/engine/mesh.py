"""Data parallelism over all local devices: where arrays lie, and the one jit of each step.

State is replicated, a batch is split over a 1-D mesh with the axis 'data'. A batch that does not
divide over the devices is replicated and computed by each, with the same result.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_resnet.engine.dispatch import CompiledSteps, PlacedChunk, eval_chunk, train_chunk
from flax_resnet.engine.steps import EvalStep, TrainStep

AXIS = "data"
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(None, AXIS)  # of [steps, batch, ...]


class DataParallel:
    """The devices, and how steps are compiled for them.

    Attributes:
      mode: 'jit' (one program over the mesh) or 'pmap' (a program a device; in maintenance mode
        in JAX, but exact for this use).
      batch_norm: 'global': statistics over the batch; 'device': over each device's share.
      devices: the jax.Devices used, in order.
      replicated: the sharding of an array that every device holds.
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
        self.replicated = NamedSharding(self.mesh, EVERYWHERE)
        self._split = NamedSharding(self.mesh, SPLIT)

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
        return jax.device_put(jax.device_get(tree), self.replicated, may_alias=False)

    def place(self, *arrays: np.ndarray) -> PlacedChunk:
        """Puts the arrays of a chunk on the devices: [steps, batch, ...] each."""
        steps, size = arrays[0].shape[:2]
        split = size > 0 and size % self.num_devices == 0
        if split and self.mode == "pmap":  # it maps over an axis as long as there are devices
            arrays = tuple(a.reshape(steps, self.num_devices, -1, *a.shape[2:]) for a in arrays)
        sharding = self._split if split else self.replicated
        return PlacedChunk(jax.device_put(arrays, sharding), steps, size, split)

    def compile_train(self, step: TrainStep) -> CompiledSteps:
        """Compiles a training step, to be called with its hyperparameters.

        The state's memory is reused: the one passed in is gone after the call.
        """
        shared = AXIS if self.batch_norm == "global" else None
        function = step.function
        mapped = functools.partial(function, axis_name=AXIS, norm_axis_name=shared)
        inputs = (self.replicated, self.replicated, self._split, self.replicated)
        split = self._jit(train_chunk(function), inputs, self.replicated, donate=(0,))
        if self.mode == "pmap":
            split = self._pmap(train_chunk(mapped), (None, None, 1, None), None, donate=(0,))
        elif self.batch_norm == "device" and self.num_devices > 1:
            split = self._jit(
                jax.shard_map(
                    train_chunk(mapped),
                    mesh=self.mesh,
                    in_specs=(EVERYWHERE, EVERYWHERE, SPLIT, EVERYWHERE),
                    out_specs=EVERYWHERE,
                    check_vma=False,  # the step averages its gradients itself, as under pmap
                ),
                inputs,
                self.replicated,
                donate=(0,),
            )
        whole = self._jit(train_chunk(function), self.replicated, self.replicated, donate=(0,))
        hparams = {name: np.asarray(value, np.float32) for name, value in step.hparams.items()}
        return CompiledSteps(split, whole, self.replicate(hparams))

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
