import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.optim.muon import (
    COEFFICIENTS,
    EPSILON,
    NEWTON_SCHULZ_STEPS,
    muon,
    normalize_filters,
    orthogonalize,
)
from flax_resnet.optim.optimizers import OPTIMIZERS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 3, 24, 64), (1, 1, 16, 40), (3, 3, 8, 8)])
def test_orthogonalized_filters_are_optaxs(shape):
    filters = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    theirs = optax.contrib.scale_by_muon(
        ns_coeffs=COEFFICIENTS,
        ns_steps=NEWTON_SCHULZ_STEPS,
        beta=0.0,
        eps=EPSILON,
        nesterov=False,
        weight_dimension_numbers={"w": optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)},
    )
    updates, _ = theirs.update({"w": filters}, theirs.init({"w": filters}))
    np.testing.assert_allclose(orthogonalize(filters), updates["w"], rtol=1e-4, atol=1e-5)


def test_singular_values_come_near_one_whatever_the_scale():
    filters = jnp.asarray(1e-4 * RNG.normal(size=(3, 3, 32, 16)), jnp.float32)
    values = np.linalg.svd(orthogonalize(filters).reshape(-1, 16), compute_uv=False)
    assert 0.5 < values.min() and values.max() < 1.3


def test_steps_follow_nesterovs_momentum():
    first, second = (jnp.asarray(RNG.normal(size=(1, 1, 4, 4)), jnp.float32) for _ in range(2))
    rule = muon(0.6)
    state = rule.init(first)
    one, state = rule.update(first, state)
    two, _ = rule.update(second, state)
    np.testing.assert_allclose(one, -orthogonalize(first), rtol=1e-5, atol=1e-5)
    momentum = 0.6 * first + second
    np.testing.assert_allclose(two, -orthogonalize(second + 0.6 * momentum), rtol=1e-5, atol=1e-5)


def test_filters_get_the_norm_of_an_orthogonal_matrix_unless_frozen():
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 8, 4)), jnp.float32)
    params = {name: {"kernel": kernel} for name in ("conv", "stem")}
    params["head"] = {"kernel": jnp.ones((4, 10))}
    new = normalize_filters(params, ("stem/kernel",))
    assert float(jnp.linalg.norm(new["conv"]["kernel"])) == pytest.approx(2)  # the root of 4
    direction = new["conv"]["kernel"] / kernel
    np.testing.assert_allclose(direction, direction.mean(), rtol=1e-5)
    for name in ("stem", "head"):
        np.testing.assert_array_equal(new[name]["kernel"], params[name]["kernel"])


def test_filters_alone_are_orthogonalized():
    params = {"conv": {"kernel": jnp.ones((3, 3, 2, 4))}, "norm": {"bias": jnp.ones(4)}}
    grads = jax.tree.map(lambda p: 7.0 * p, params)
    rule = OPTIMIZERS["muon"](muon_momentum=0.5, momentum=0.9, weight_decay=0.1)
    updates, _ = rule.update(grads, rule.init(params), params)
    np.testing.assert_allclose(updates["norm"]["bias"], -1.9 * 7.1, rtol=1e-6)
    np.testing.assert_allclose(
        updates["conv"]["kernel"], -orthogonalize(grads["conv"]["kernel"]), rtol=1e-5
    )
