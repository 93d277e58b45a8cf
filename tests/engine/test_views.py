from typing import Any

import jax
import numpy as np

from flax_resnet.engine.views import predict_views

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(5, 4, 3, 7))


def predict(variables: Any, images: Any) -> Any:
    return jax.numpy.einsum("bhwc,hwck->bk", images.astype(np.float32), variables)


def logits(images: np.ndarray) -> np.ndarray:
    return np.einsum("bhwc,hwck->bk", images, WEIGHTS)


def mirrored(images: np.ndarray) -> np.ndarray:
    return (logits(images) + logits(images[:, :, ::-1])) / 2


def test_mirror_is_the_mean_of_both():
    got = predict_views(predict, "mirror")(WEIGHTS, jax.numpy.asarray(IMAGES))
    np.testing.assert_allclose(got, mirrored(IMAGES), rtol=1e-4)


def test_shifts_have_half_the_weight():
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    down, up = padded[:, :5, :4], padded[:, 2:, 2:]
    expected = mirrored(IMAGES) / 2 + mirrored(down) / 4 + mirrored(up) / 4
    got = predict_views(predict, "mirror_shift")(WEIGHTS, jax.numpy.asarray(IMAGES))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
