"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flax_resnet.models.layers import Images


def drop_rates(last: float, stage_sizes: Sequence[int]) -> list[list[float]]:
    """The rate of each block by stage, from last / L at the first to `last` (equation 4)."""
    total, rates, done = sum(stage_sizes), [], 0
    for blocks in stage_sizes:
        rates.append([last * (done + block + 1) / total for block in range(blocks)])
        done += blocks
    return rates


def drop_branch(x: Images, rate: float, key: jax.Array) -> Images:
    """Zeroes the branch of each image with probability `rate`; scales the others by 1 / (1 - rate).

    So the mean is that of evaluation, which leaves nothing out and scales nothing. The authors drop
    a block for the whole batch, and scale in evaluation; by image is what EfficientNet and timm do.
    """
    kept = jax.random.bernoulli(key, 1 - rate, (len(x), 1, 1, 1))
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)
