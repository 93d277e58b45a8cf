"""Squeeze-and-excitation, stochastic depth and the last scale."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.models.blocks import BasicBlock
from flax_resnet.models.designs import Design
from flax_resnet.models.layers import Layers
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.squeeze_excitation import SqueezeExcitation
from flax_resnet.models.stochastic_depth import drop_branch, drop_rates

DESIGN = Design((1, 2), (4, 8), (3, 3), (1, 1), None)
IMAGES = jnp.float32(np.random.RandomState(0).normal(size=(6, 8, 8, 3)))


def test_squeeze_and_excitation_scales_each_channel_by_all_channels_means():
    rng = np.random.RandomState(0)
    x = jnp.float32(rng.normal(size=(3, 5, 4, 32)))
    first, second = rng.normal(size=(32, 2)), rng.normal(size=(2, 32))
    biases = rng.normal(size=2), rng.normal(size=32)
    params = {
        "squeeze": {"kernel": first, "bias": biases[0]},
        "excite": {"kernel": second, "bias": biases[1]},
    }
    params = jax.tree.map(jnp.float32, params)
    hidden = np.maximum(x.mean((1, 2)) @ first + biases[0], 0)
    gate = 1 / (1 + np.exp(-(hidden @ second + biases[1])))
    ours: Any = SqueezeExcitation(Layers()).apply({"params": params}, x)
    np.testing.assert_allclose(ours, x * gate[:, None, None], 1e-4, 1e-5)


def test_squeeze_and_excitation_keeps_bfloat16():
    x = jnp.ones((1, 2, 2, 8), jnp.bfloat16)
    layers = Layers(dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(
        lambda: SqueezeExcitation(layers).init_with_output(jax.random.key(0), x)
    )
    assert y.dtype == jnp.bfloat16 and variables["params"]["squeeze"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("where", ["stem", "blocks"])
def test_squeeze_and_excitation_is_where_the_design_says(where):
    model = ResNet(dataclasses.replace(DESIGN, squeeze_excitation=where), 10)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES))["params"]
    has = {name for name, part in params.items() if name.endswith("_se") or "se" in part}
    blocks = {"stage1_block1", "stage2_block1", "stage2_block2"}
    assert has == (blocks if where == "blocks" else {"stem_se"})


def test_drop_rates_climb_linearly_to_the_last_blocks():
    assert drop_rates(0.5, (1, 1, 3)) == [[0.1], [0.2], pytest.approx([0.3, 0.4, 0.5])]


def test_a_branch_is_left_out_for_whole_images_and_its_mean_stays():
    x = jnp.ones((4000, 2, 1, 3))
    y = np.asarray(drop_branch(x, 0.2, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1.25)}
    assert (y == y[:, :1, :1, :1]).all() and abs(y.mean() - 1) < 0.03


def test_stochastic_depth_changes_training_alone_and_depends_on_the_key():
    model = ResNet(dataclasses.replace(DESIGN, stochastic_depth=0.9), 10)
    plain = ResNet(DESIGN, 10)
    variables = jax.jit(plain.init)(jax.random.key(0), IMAGES)
    assert jax.tree.structure(jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES))) == (
        jax.tree.structure(variables)
    )
    np.testing.assert_array_equal(model.apply(variables, IMAGES), plain.apply(variables, IMAGES))

    @jax.jit
    def train(seed: int) -> jax.Array:
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, IMAGES, True, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(train(1), train(1))
    assert (train(1) != train(2)).any()


def test_a_block_with_its_last_scale_at_zero_starts_as_its_shortcut():
    x = jnp.float32(np.random.RandomState(0).normal(size=(2, 6, 6, 4)))
    for zero in (True, False):
        module = BasicBlock(dataclasses.replace(DESIGN, zero_last_scale=zero), stage=0)
        found: Any = module.init_with_output(jax.random.key(0), x, True)
        y, variables = found
        assert (y == np.maximum(x, 0)).all() == zero
        assert float(variables["params"]["norm1"]["scale"].min()) == 1
