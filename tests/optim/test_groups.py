import jax.numpy as jnp
import numpy as np

from flax_resnet.optim.averages import moving_average
from flax_resnet.optim.groups import decay_mask, freeze, scale_norm_biases

PARAMS = {
    "stem_norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    "stage1_block1": {"norm1": {"bias": jnp.ones(2)}, "conv1": {"kernel": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
}


def test_only_biases_of_norms_are_scaled():
    rule = scale_norm_biases(64.0)
    updates, _ = rule.update(PARAMS, rule.init(PARAMS))
    assert float(updates["stem_norm"]["bias"][0]) == 64
    assert float(updates["stage1_block1"]["norm1"]["bias"][0]) == 64
    assert float(updates["stem_norm"]["scale"][0]) == float(updates["head"]["bias"][0]) == 1


def test_frozen_parameters_get_no_update():
    rule = freeze(["stem", "conv1"])
    updates, _ = rule.update(PARAMS, rule.init(PARAMS))
    assert not updates["stem_norm"]["scale"].any()
    assert not updates["stage1_block1"]["conv1"]["kernel"].any()
    assert updates["stage1_block1"]["norm1"]["bias"].all() and updates["head"]["bias"].all()


def test_only_kernels_decay():
    mask = decay_mask(PARAMS)
    assert mask["head"] == {"kernel": True, "bias": False}
    assert mask["stem_norm"] == {"scale": False, "bias": False}


def test_the_average_forgets_the_start_and_keeps_its_decay_in_the_end():
    average = {"w": jnp.zeros(())}
    for step in range(3):
        average = moving_average(average, {"w": jnp.float32(1)}, step, 0.9)
    expected = 1 - (1 / 10) * (2 / 11) * (3 / 12)
    np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    late = moving_average({"w": jnp.zeros(())}, {"w": jnp.float32(1)}, 10_000, 0.9)
    np.testing.assert_allclose(late["w"], 0.1, rtol=1e-5)
