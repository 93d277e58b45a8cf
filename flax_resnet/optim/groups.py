"""What applies to a group of parameters, which are known by their names."""

from typing import Any

import jax
import optax


def decay_mask(params: Any) -> Any:
    """True for the kernels of convolutions and linear layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def scale_norm_biases(factor: Any) -> optax.GradientTransformation:
    """Multiplies the updates of BatchNorm's biases, and so their learning rate."""

    def is_norm_bias(path: tuple[Any, ...]) -> bool:
        return path[-1].key == "bias" and "norm" in path[-2].key

    def scale(updates: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, update: factor * update if is_norm_bias(path) else update, updates
        )

    return optax.stateless(lambda updates, _: scale(updates))
