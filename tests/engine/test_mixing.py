from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet.engine.mixing import cutmix, mixup, soften

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 12, 3)), jnp.float32)
LABELS = jax.nn.one_hot(jnp.arange(6) % 4, 4)


def test_smoothed_labels_are_optaxs():
    soft = soften(jnp.array([2, 0]), 4, 0.2, jnp.float32)
    np.testing.assert_allclose(soft, optax.smooth_labels(jnp.eye(4)[jnp.array([2, 0])], 0.2))
    np.testing.assert_allclose(soften(soft, 4, 0.0, jnp.float32), soft)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_mixes_images_and_labels_with_one_share(seed):
    images, labels = mixup(0.7)(jax.random.key(seed), IMAGES, LABELS)
    partners, others = jnp.roll(IMAGES, 1, 0), jnp.roll(LABELS, 1, 0)
    share = (labels[0] - others[0])[0]  # the first image has class 0, its partner class 1
    np.testing.assert_allclose(images, share * IMAGES + (1 - share) * partners, atol=1e-6)
    np.testing.assert_allclose(labels, share * LABELS + (1 - share) * others, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_pastes_a_box_and_mixes_labels_by_its_area(seed):
    images, labels = cutmix(1.0)(jax.random.key(seed), IMAGES, LABELS)
    pasted = np.asarray((images != IMAGES).any(-1))
    assert (pasted == pasted[0]).all()
    np.testing.assert_array_equal(images[:, pasted[0]], jnp.roll(IMAGES, 1, 0)[:, pasted[0]])
    rows, columns = pasted[0].any(1), pasted[0].any(0)
    np.testing.assert_array_equal(pasted[0], rows[:, None] & columns)
    share = 1 - pasted[0].mean()
    mixed = share * LABELS + (1 - share) * jnp.roll(LABELS, 1, 0)
    np.testing.assert_allclose(labels, mixed, atol=1e-6)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_shares_follow_the_beta_distribution(mix: Any):
    def share(key: Any) -> Any:
        labels = mix(1.0)(key, jnp.zeros((2, 64, 64, 1)), jnp.eye(2))[1]
        return labels[0, 0]

    shares = jax.vmap(share)(jax.random.split(jax.random.key(0), 2000))
    # Uniform for alpha = 1; parts of a box that lie outside raise the share of the image itself.
    assert shares.mean() == pytest.approx(0.5 if mix is mixup else 0.69, abs=0.02)
    assert shares.min() < 0.2 and shares.max() > 0.95
