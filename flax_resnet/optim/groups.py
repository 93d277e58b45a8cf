"""What applies to a group of parameters, which are known by their names."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def decay_mask(params: Any) -> Any:
    """True for the kernels of convolutions and linear layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def parameter_name(path: tuple[Any, ...]) -> str:
    """The name of a parameter: stage1_block1/conv1/kernel."""
    return "/".join(part.key for part in path)


def is_frozen(name: str, frozen: Sequence[str]) -> bool:
    """Whether a parameter's name begins with one of `frozen`, such as stem, or has such a part."""
    return any(part.startswith(start) for start in frozen for part in (name, *name.split("/")))


def freeze(frozen: Sequence[str]) -> optax.GradientTransformation:
    """Drops the updates of the parameters that are frozen, weight decay included."""

    def keep(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return jnp.zeros_like(update) if is_frozen(parameter_name(path), frozen) else update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(keep, updates))


def scale_norm_biases(factor: Any) -> optax.GradientTransformation:
    """Multiplies the updates of BatchNorm's biases, and so their learning rate."""

    def is_norm_bias(path: tuple[Any, ...]) -> bool:
        return path[-1].key == "bias" and "norm" in path[-2].key

    def scale(updates: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, update: factor * update if is_norm_bias(path) else update, updates
        )

    return optax.stateless(lambda updates, _: scale(updates))
