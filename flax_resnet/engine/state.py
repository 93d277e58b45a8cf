"""What a training step changes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

# A leaf of these trees is an array, but JAX and orbax also build them of shapes and shardings.
Leaf = Any


@struct.dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
      step: int32, steps taken since the start of the run.
      params: parameters of the network.
      batch_stats: running statistics of BatchNorm.
      opt_state: state of the optax optimizer.
      averages: averaged variables, as in `variables`; None: none are kept.
    """

    step: Leaf
    params: Any
    batch_stats: Any
    opt_state: Any
    averages: Any = None

    @property
    def variables(self) -> Mapping[str, Any]:
        """The collections that training applies the network to."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> Mapping[str, Any]:
        """The collections to evaluate and predict with: the averages, if any are kept."""
        return self.variables if self.averages is None else self.averages


@struct.dataclass
class MetricSums:
    """Sums over the steps of an epoch or of an evaluation, kept on the device.

    Attributes:
      loss: sum of losses: training sums the batches' means, evaluation the images' losses.
      batches: int32, number of batches.
      correct: int32, images whose largest logit is the label's.
      images: int32, number of images.
      non_finite: int32, steps whose loss or new state was NaN or infinite; the other sums leave
        them out.
    """

    loss: Leaf
    batches: Leaf
    correct: Leaf
    images: Leaf
    non_finite: Leaf

    @classmethod
    def zeros(cls, dtype: Any = jnp.float32) -> "MetricSums":
        """The sums over nothing."""
        zero = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros((), dtype), zero, zero, zero, zero)

    def add(self, loss: Any, correct: Any, images: Any) -> "MetricSums":
        """These sums with one more batch."""
        return MetricSums(
            self.loss + loss,
            self.batches + 1,
            self.correct + correct,
            self.images + images,
            self.non_finite,
        )


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    averages: bool = False,
) -> TrainState:
    """Initial weights and optimizer state, for images of (height, width, channels).

    With `averages`, room for averaged variables.
    """
    # Level 1 gives the bits of XLA's default level, and compiles several times faster on a CPU
    # (docs/performance.md). Other compilers have other options.
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    init = partial(_init, model, optimizer, image_shape, averages)
    return jax.jit(init, compiler_options=options)(jax.random.key(seed))


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    averages: bool = False,
) -> TrainState:
    """The shapes and dtypes of `init_state`."""
    init = partial(_init, model, optimizer, image_shape, averages)
    return jax.eval_shape(init, jax.random.key(0))


def _init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    averages: bool,
    key: jax.Array,
) -> TrainState:
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        averages=dict(variables) if averages else None,
    )
