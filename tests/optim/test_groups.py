import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.optim.averages import lookahead, lookahead_schedule, moving_average
from flax_resnet.optim.groups import (
    decay_mask,
    freeze,
    group_of,
    is_frozen,
    stop_stem_bias,
    with_rates,
)
from flax_resnet.optim.optimizers import OPTIMIZERS

PARAMS = {
    "stem_norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    "stage1_block1": {"norm1": {"bias": jnp.ones(2)}, "conv1": {"kernel": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
}


def test_groups_are_known_by_name():
    names = {
        "stem_norm/bias": "norm_bias",
        "stage1_block1/norm1/bias": "norm_bias",
        "stem_whiten/bias": "stem_bias",
        "head/kernel": "head",
        "head/bias": "head",
        "stem_norm/scale": "others",
        "stem_whiten/kernel": "others",
        "stem_se/excite/bias": "others",
    }
    assert {name: group_of(name) for name in names} == names


def test_a_name_is_frozen_by_its_beginning_and_numbers_are_whole():
    name = "stage1_block12/conv1/kernel"
    assert all(is_frozen(name, [start]) for start in ("stage1", "stage1_block12", "conv", "kernel"))
    assert not any(is_frozen(name, [start]) for start in ("stage1_block1", "block12"))


def test_a_groups_rate_multiplies_its_gradient_and_not_its_decay():
    def make(weight_decay: float | None) -> optax.GradientTransformation:
        return OPTIMIZERS["sgd"](weight_decay=weight_decay)

    rule = with_rates(make, {"norm_bias": 64.0, "head": 8.0}, 0.5)
    updates, _ = rule.update(PARAMS, rule.init(PARAMS), PARAMS)  # gradients of 1, weights of 1
    assert float(updates["stem_norm"]["bias"][0]) == -(64 + 0.5)
    assert float(updates["stage1_block1"]["norm1"]["bias"][0]) == -(64 + 0.5)
    assert float(updates["head"]["kernel"][0]) == float(updates["head"]["bias"][0]) == -(8 + 0.5)
    assert float(updates["stem_norm"]["scale"][0]) == -1.5
    plain = with_rates(lambda _: OPTIMIZERS["adam"](), {"head": 8.0})
    updates, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    ratio = updates["head"]["kernel"][0] / updates["stem_norm"]["scale"][0]
    assert float(ratio) == pytest.approx(8)


def test_the_stems_bias_stops():
    params = {"stem_whiten": {"bias": jnp.ones(2)}, "head": {"bias": jnp.ones(2)}}
    for is_on in (True, False):
        rule = stop_stem_bias(jnp.asarray(is_on))
        updates, _ = rule.update(params, rule.init(params))
        assert updates["stem_whiten"]["bias"].any() == is_on and updates["head"]["bias"].all()


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


def test_lookahead_keeps_and_goes_on_from_slow_weights_when_a_step_is_due():
    slow_steps = lookahead_schedule(every=5, decay=0.8, power=3.0, total_steps=20)
    slow, fast = {"w": jnp.float32(1)}, {"w": jnp.float32(2)}
    for step, expected in [(4, (1, 2)), (5, None), (20, (1.2, 1.2))]:
        is_due, decay = slow_steps(step)
        averages, values = lookahead(slow, fast, is_due, decay)
        if expected is None:
            kept = 0.8 * (5 / 20) ** 3
            expected = (kept * 1 + (1 - kept) * 2,) * 2
        np.testing.assert_allclose((averages["w"], values["w"]), expected, rtol=1e-6)
    assert lookahead_schedule(5, 0.5, 0.0, 20)(5) == (True, 0.5)
