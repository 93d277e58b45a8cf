"""Averages of a network's weights over the steps, to evaluate with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Steps taken -> (whether the slow weights take a step now, the share of them that is kept).
SlowSteps = Callable[[Any], tuple[Any, Any]]


def moving_average(averages: Any, values: Any, step: Any, decay: Any) -> Any:
    """The exponential moving average of all floats, BatchNorm's statistics among them.

    The decay climbs as (1 + step) / (10 + step), so that a short run forgets its initial weights
    (as TensorFlow's ExponentialMovingAverage with num_updates, and timm's with warm-up).

    Args:
      averages: so far.
      values: the new values.
      step: steps taken before this one.
      decay: share of the old average that is kept in the long run, 0 to 1.
    """
    keep = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(values, averages, 1 - keep)


def lookahead(averages: Any, values: Any, is_due: Any, decay: Any) -> tuple[Any, Any]:
    """The slow weights, and the weights to go on with: where a slow step is due, the same.

    Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", algorithm 1.

    Args:
      averages: the slow weights.
      values: the new, fast weights.
      is_due: whether the slow weights take a step.
      decay: share of the old slow weights that is kept: 1 - alpha.
    """
    slow = optax.incremental_update(values, averages, 1 - decay)

    def where_due(old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(is_due, a, b), slow, old)

    return where_due(averages), where_due(values)


def lookahead_schedule(every: int, decay: float, power: float, total_steps: int) -> SlowSteps:
    """A slow step after every so many steps; its decay climbs as a power of the share of the run.

    airbench95 has 5 steps, 0.95^5 and a power of 3; a power of 0 is Zhang et al.'s constant.
    """

    def slow_step(step: Any) -> tuple[Any, Any]:
        return step % every == 0, decay * (step / total_steps) ** power

    return slow_step
