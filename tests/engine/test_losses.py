import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.engine.losses import cross_entropy, is_correct

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (64, 10)), jnp.float32)
HARD = jnp.asarray(RNG.integers(0, 10, 64), jnp.int32)
OTHER = jnp.roll(HARD, 1)
ONE_HOT = jax.nn.one_hot(HARD, 10)
MIXED = 0.7 * ONE_HOT + 0.3 * jax.nn.one_hot(OTHER, 10)


def test_one_hot_labels_give_the_loss_of_hard_ones():
    np.testing.assert_allclose(
        cross_entropy(LOGITS, ONE_HOT), cross_entropy(LOGITS, HARD), rtol=1e-6, atol=1e-6
    )


def test_the_loss_of_mixed_labels_is_the_mix_of_the_losses():
    mix = 0.7 * cross_entropy(LOGITS, HARD) + 0.3 * cross_entropy(LOGITS, OTHER)
    np.testing.assert_allclose(cross_entropy(LOGITS, MIXED), mix, rtol=1e-6)


@pytest.mark.parametrize("labels", [HARD, MIXED], ids=["hard", "soft"])
def test_loss_and_gradient_equal_a_float64_reference(labels):
    loss, grads = jax.jit(jax.value_and_grad(lambda logits: cross_entropy(logits, labels).mean()))(
        LOGITS
    )
    soft = np.asarray(ONE_HOT if labels is HARD else labels, np.float64)
    logits = np.asarray(LOGITS, np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(loss, -(soft * log_softmax).sum(-1).mean(), rtol=1e-6)
    expected = (np.exp(log_softmax) * soft.sum(-1, keepdims=True) - soft) / len(labels)
    np.testing.assert_allclose(grads, expected, rtol=1e-5, atol=1e-8)


def test_accuracy_is_against_the_likeliest_class_of_a_soft_label():
    logits = jnp.asarray([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.0, 5.0]])
    soft = jnp.asarray([[0.3, 0.7, 0.0], [0.3, 0.7, 0.0], [0.1, 0.1, 0.8]])
    assert is_correct(logits, soft).tolist() == [True, False, True]
    assert is_correct(logits, jnp.asarray([1, 1, 2])).tolist() == [True, False, True]
