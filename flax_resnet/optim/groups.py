"""What applies to a group of parameters, which are known by their names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jax import lax


def decay_mask(params: Any) -> Any:
    """True for the kernels of convolutions and linear layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def parameter_name(path: tuple[Any, ...]) -> str:
    """The name of a parameter: stage1_block1/conv1/kernel."""
    return "/".join(part.key for part in path)


def is_frozen(name: str, frozen: Sequence[str]) -> bool:
    """Whether a parameter's name begins with one of `frozen`, such as stem, or has such a part.

    A number is taken whole: stage1_block1 is not the beginning of stage1_block12.
    """

    def begins(part: str, start: str) -> bool:
        after = part[len(start) : len(start) + 1]
        return part.startswith(start) and not (start[-1:].isdigit() and after.isdigit())

    return any(begins(part, start) for start in frozen for part in (name, *name.split("/")))


def freeze(frozen: Sequence[str]) -> optax.GradientTransformation:
    """Drops the updates of the parameters that are frozen, weight decay included."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: is_frozen(parameter_name(path), frozen), params
        )

    return optax.masked(optax.set_to_zero(), mask)


def hold(params: Any, held: Sequence[str]) -> Any:
    """The parameters, of which those that are named have no gradient, nor is it computed."""

    def stop(path: tuple[Any, ...], parameter: jax.Array) -> jax.Array:
        return lax.stop_gradient(parameter) if is_frozen(parameter_name(path), held) else parameter

    return jax.tree_util.tree_map_with_path(stop, params)


# Groups that may have a rate of their own, which config.NAME_rate multiplies.
RATED = ("norm_bias", "head", "stem_bias")


def group_of(name: str) -> str:
    """The group of a parameter, one of RATED or 'others'."""
    *modules, kind = name.split("/")
    if kind == "bias" and "norm" in modules[-1]:
        return "norm_bias"
    if kind == "bias" and modules == ["stem_whiten"]:
        return "stem_bias"
    return "head" if modules[0] == "head" else "others"


def with_rates(
    make: Callable[[Any], optax.GradientTransformation],
    rates: Mapping[str, Any],
    weight_decay: Any = None,
) -> optax.GradientTransformation:
    """An optimizer that multiplies the learning rate of groups, and not their weight decay.

    Args:
      make: the optimizer of a learning rate of 1 for a weight decay.
      rates: by group; those that are missing have a rate of 1.
      weight_decay: in a step, that of a learning rate of 1; None: none.
    """

    def labels(params: Any) -> Any:
        def label(path: tuple[Any, ...], _: Any) -> str:
            group = group_of(parameter_name(path))
            return group if group in rates else "others"

        return jax.tree_util.tree_map_with_path(label, params)

    def rule(rate: Any) -> optax.GradientTransformation:
        own = make(None if weight_decay is None else weight_decay / rate)
        return optax.chain(own, optax.scale(rate))

    rules = {group: rule(rate) for group, rate in rates.items()}
    return optax.partition({**rules, "others": make(weight_decay)}, labels)


def stop_stem_bias(is_on: Any) -> optax.GradientTransformation:
    """Drops the updates of the stem's biases where `is_on` is False."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: group_of(parameter_name(path)) == "stem_bias", params
        )

    return optax.masked(optax.scale(is_on), mask)
