"""Optimisers by name, with PyTorch's meaning of momentum and weight decay."""

from typing import Any

import jax
import optax

OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "nesterov")


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decay: str = "all",
) -> optax.GradientTransformation:
    """An optax optimiser (the paper's section 2.2 compares sgd, momentum, nesterov and adam).

    Args:
      name: one of OPTIMIZERS.
      schedule: learning rate by step.
      momentum: of 'momentum' and 'nesterov'.
      beta1: of 'adam' and 'adamw', decay of the mean of the gradients.
      beta2: of 'adam' and 'adamw', decay of the mean of the squared gradients.
      epsilon: of 'adam' and 'adamw', added to the denominator.
      weight_decay: of 'sgd', 'momentum', 'nesterov': L2, added to the gradient before momentum;
        of 'adamw': decoupled (Loshchilov and Hutter 2019).
      decay: 'all' parameters decay, or 'kernels' alone (no BatchNorm scale, no bias).

    Raises:
      ValueError: unknown name.
    """
    mask = decay_mask if decay == "kernels" else None
    if name == "adam":
        return optax.adam(schedule, b1=beta1, b2=beta2, eps=epsilon)
    if name == "adamw":
        return optax.adamw(
            schedule, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=mask
        )
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: one of {', '.join(OPTIMIZERS)}")
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity(),
        optax.sgd(
            schedule,
            momentum=None if name == "sgd" else momentum,
            nesterov=name == "nesterov",
        ),
    )


def decay_mask(params: Any) -> Any:
    """True for the kernels of convolutions and linear layers, by name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
