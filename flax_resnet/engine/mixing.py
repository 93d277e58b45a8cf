"""Soft labels: label smoothing, and pairs of images mixed within a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flax_resnet.engine.losses import Labels

Pixels = Float[Array, "batch height width channels"]
SoftLabels = Float[Array, "batch classes"]
# (key, images, labels) -> (images, labels)
Mix = Callable[[Any, Pixels, SoftLabels], tuple[Pixels, SoftLabels]]


def soften(labels: Labels, num_classes: int, smoothing: Any, dtype: Any) -> SoftLabels:
    """Probabilities of the classes: 1 - smoothing for the label, the rest spread over all classes.

    Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    if jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    return optax.smooth_labels(labels, smoothing)


def mixup(alpha: float) -> Mix:
    """Mixes each image with another: lam * a + (1 - lam) * b (Zhang et al. 2018, equation 1).

    lam ~ Beta(alpha, alpha), one a batch as in the authors' code.
    """

    def mix(key: Any, images: Pixels, labels: SoftLabels) -> tuple[Pixels, SoftLabels]:
        lam = jax.random.beta(key, alpha, alpha, dtype=images.dtype)
        return _blend(images, lam), _blend(labels, lam.astype(labels.dtype))

    return mix


def cutmix(alpha: float) -> Mix:
    """Pastes a box of another image, and mixes labels by area (Yun et al. 2019, section 3.1).

    The box has a share 1 - lam of the area, lam ~ Beta(alpha, alpha), and its center is any pixel;
    what lies outside is cut off. One a batch, as in the authors' code.
    """

    def mix(key: Any, images: Pixels, labels: SoftLabels) -> tuple[Pixels, SoftLabels]:
        height, width = images.shape[1:3]
        lam_key, *center_keys = jax.random.split(key, 3)
        side = jnp.sqrt(1 - jax.random.beta(lam_key, alpha, alpha))

        def inside(center_key: Any, size: int) -> jax.Array:
            center = jax.random.randint(center_key, (), 0, size)
            half = (size * side).astype(jnp.int32) // 2
            pixels = jnp.arange(size)
            return (pixels >= center - half) & (pixels < center + half)

        rows, columns = (
            inside(k, size) for k, size in zip(center_keys, (height, width), strict=True)
        )
        box = (rows[:, None] & columns[None, :])[..., None]
        mixed = jnp.where(box, _partner(images), images)
        return mixed, _blend(labels, 1 - box.mean(dtype=labels.dtype))

    return mix


def _partner(array: jax.Array) -> jax.Array:
    """Another image of the batch for each, at random because the batch's order is."""
    return jnp.roll(array, 1, axis=0)


def _blend(array: jax.Array, share: jax.Array) -> jax.Array:
    return share * array + (1 - share) * _partner(array)
