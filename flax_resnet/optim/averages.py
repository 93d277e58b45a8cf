"""Averages of a network's weights over the steps, to evaluate with."""

from typing import Any

import jax.numpy as jnp
import optax


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
