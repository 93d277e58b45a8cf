"""Optimizers by name, with PyTorch's meaning of momentum and weight decay.

Each gives updates for a learning rate of 1, to be added to the parameters: the training step
scales them by `schedule(state.step)`. No optimizer has a schedule, and so a clock, of its own.
Momentum, epsilon and weight decay may be traced; Adam's betas may not: 1 - beta2 of a float32 beta2
is wrong in the fifth digit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from flax_resnet.optim.muon import is_filter, muon

# What optax takes as the mask of a weight decay: parameters -> a bool each; None: all decay.
Mask = Callable[[Any], Any] | None
Scalar = Any  # a float or a traced array ()


def _adam(
    *, beta1: float = 0.9, beta2: float = 0.999, epsilon: Scalar = 1e-8, **_: Any
) -> optax.GradientTransformation:
    return optax.adam(1.0, beta1, beta2, epsilon)


def _adamw(
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask = None,
    **_: Any,
) -> optax.GradientTransformation:
    return optax.adamw(1.0, beta1, beta2, epsilon, weight_decay=weight_decay, mask=mask)


def _momentum(
    *,
    momentum: Scalar | None = 0.9,
    nesterov: bool = False,
    weight_decay: Scalar | None = None,
    mask: Mask = None,
    **_: Any,
) -> optax.GradientTransformation:
    decays = weight_decay is not None
    decay = optax.add_decayed_weights(weight_decay, mask) if decays else optax.identity()
    return optax.chain(decay, optax.sgd(1.0, momentum, nesterov))


def _sgd(**options: Any) -> optax.GradientTransformation:
    return _momentum(**{**options, "momentum": None})


def _muon(*, muon_momentum: Scalar = 0.6, **options: Any) -> optax.GradientTransformation:
    def labels(params: Any) -> Any:
        return jax.tree.map(lambda p: "filters" if is_filter(p) else "others", params)

    rules = {"filters": muon(muon_momentum), "others": _momentum(**{**options, "nesterov": True})}
    return optax.partition(rules, labels)


# Called with the hyperparameters of all of them by keyword; each takes its own:
#   momentum: of 'momentum' and 'nesterov'; of 'muon' for all but filters.
#   muon_momentum: of 'muon', for filters.
#   beta1, beta2, epsilon: of 'adam' and 'adamw': decay of the mean of the gradients, of the mean
#     of their squares; added to the denominator.
#   weight_decay: of 'sgd', 'momentum' and 'nesterov' L2, added to the gradient before momentum;
#     of 'adamw' decoupled (Loshchilov and Hutter 2019); of 'muon' L2, on all but filters.
#   mask: of the weight decay.
# The paper's section 2.2 compares sgd, momentum, nesterov and adam.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": functools.partial(_momentum, nesterov=True),
    "muon": _muon,
}
