import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.optim.optimizers import OPTIMIZERS, decay_mask, make_optimizer


def two_steps(name: str, **options) -> float:
    """A parameter at 1.0 after two steps of gradient 0.5 at learning rate 0.1."""
    optimizer = make_optimizer(name, optax.constant_schedule(0.1), **options)
    params = {"kernel": jnp.ones(())}
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update({"kernel": jnp.asarray(0.5)}, state, params)
        params = optax.apply_updates(params, updates)
    return float(params["kernel"])


def test_sgd_momentum_and_nesterov_by_hand():
    assert two_steps("sgd") == pytest.approx(1 - 0.05 - 0.05)
    # velocity 0.5, then 0.9 * 0.5 + 0.5
    assert two_steps("momentum") == pytest.approx(1 - 0.05 - 0.095)
    # gradient + 0.9 * velocity: 0.95, then 0.5 + 0.9 * 0.95
    assert two_steps("nesterov") == pytest.approx(1 - 0.095 - 0.1355)


def test_adam_steps_by_the_learning_rate_on_a_constant_gradient():
    assert two_steps("adam") == pytest.approx(0.8, abs=1e-5)


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
def test_every_optimizer_moves_against_the_gradient(name):
    assert two_steps(name) < 1


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="nesterov"):
        two_steps("adagrad")
