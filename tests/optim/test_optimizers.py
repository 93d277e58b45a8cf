from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.optim.groups import decay_mask
from flax_resnet.optim.optimizers import OPTIMIZERS


def two_steps(name: str, **options: Any) -> float:
    """A parameter at 1.0 after two steps of gradient 0.5 at learning rate 0.1."""
    optimizer = OPTIMIZERS[name](**options)
    params = {"kernel": jnp.ones(())}
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update({"kernel": jnp.asarray(0.5)}, state, params)
        params = jax.tree.map(lambda p, u: p + 0.1 * u, params, updates)
    return float(params["kernel"])


def test_sgd_momentum_and_nesterov_by_hand():
    assert two_steps("sgd") == pytest.approx(1 - 0.05 - 0.05)
    # velocity 0.5, then 0.9 * 0.5 + 0.5
    assert two_steps("momentum") == pytest.approx(1 - 0.05 - 0.095)
    # gradient + 0.9 * velocity: 0.95, then 0.5 + 0.9 * 0.95
    assert two_steps("nesterov") == pytest.approx(1 - 0.095 - 0.1355)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_steps_by_the_learning_rate_on_a_constant_gradient(name):
    assert two_steps(name) == pytest.approx(0.8, abs=1e-5)


def test_weight_decay_is_in_the_gradient_for_sgd_and_apart_for_adamw():
    # gradients 0.5 + 0.1 * 1, then 0.5 + 0.1 * 0.94
    assert two_steps("sgd", weight_decay=0.1) == pytest.approx(1 - 0.06 - 0.0594)
    after_one = 1 - 0.1 - 0.1 * 0.1 * 1
    expected = after_one - 0.1 - 0.1 * 0.1 * after_one
    assert two_steps("adamw", weight_decay=0.1) == pytest.approx(expected, abs=1e-5)


def test_decay_of_kernels_spares_scale_and_bias():
    params = {"head": {"kernel": np.ones(2), "bias": np.ones(2)}, "norm": {"scale": np.ones(2)}}
    assert decay_mask(params) == {
        "head": {"kernel": True, "bias": False},
        "norm": {"scale": False},
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_ignores_the_hyperparameters_of_others(name):
    every = {"momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0}
    assert two_steps(name, **every, mask=None) == two_steps(name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_counts_steps_for_a_schedule(name):
    state = OPTIMIZERS[name]().init({"kernel": jnp.ones(2)})
    counters = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32]
    assert len(counters) == name.startswith("adam")  # Adam's, which corrects its means' bias
