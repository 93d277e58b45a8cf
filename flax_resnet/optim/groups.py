"""What applies to a group of parameters, which are known by their names."""

from collections.abc import Sequence
from typing import Any

import jax
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

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: is_frozen(parameter_name(path), frozen), params
        )

    return optax.masked(optax.set_to_zero(), mask)


def scale_norm_biases(factor: Any) -> optax.GradientTransformation:
    """Multiplies the updates of BatchNorm's biases, and so their learning rate."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "bias" and "norm" in path[-2].key, params
        )

    return optax.masked(optax.scale(factor), mask)
