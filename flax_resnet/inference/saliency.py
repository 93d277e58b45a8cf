"""Where in an image a network sees a class: Grad-CAM.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, UInt8
from matplotlib import colormaps

from flax_resnet.config.build import build_model
from flax_resnet.engine.steps import make_normalize
from flax_resnet.inference.model import Model

POOL = "head_pool"  # of models/resnet.py: what enters it is the last stage's map


def grad_cam(
    model: Model, images: UInt8[np.ndarray, "n h w 3"], classes: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w"]:
    """What of the last stage's map speaks for a class, from 0 to 1 in each image.

    Args:
      model: the network.
      images: of its shape.
      classes: for each image, the class whose logit is explained.

    Returns:
      As large as the images, bilinear between the map's pixels; all 0 where nothing speaks for it.
    """
    return make_grad_cam(model)(images, classes)


def make_grad_cam(model: Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`grad_cam` of a network, as a function of images and classes that compiles once."""
    network = build_model(model.config, len(model.class_names))
    normalize = make_normalize(model.config.mean, model.config.std)

    @jax.jit
    def explain(variables: Any, images: jax.Array, classes: jax.Array) -> jax.Array:
        maps = []

        def keep(entering: jax.Array) -> jax.Array:
            maps.append(entering)
            return entering

        def score(entering: jax.Array) -> jax.Array:
            logits = _apply(network, variables, normalized, lambda _: entering)
            return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

        normalized = normalize(images)
        _apply(network, variables, normalized, keep)
        weights = jax.grad(score)(maps[0]).mean((1, 2), keepdims=True)
        heat = nn.relu((weights * maps[0]).sum(-1))
        heat = jax.image.resize(heat, images.shape[:3], "bilinear")
        highest = heat.max((1, 2), keepdims=True)
        return heat / jnp.where(highest > 0, highest, 1)

    return lambda images, classes: np.asarray(
        explain(model.variables, jnp.asarray(images), jnp.asarray(classes))
    )


def _apply(
    network: nn.Module,
    variables: Any,
    images: jax.Array,
    replace: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Logits, with what enters the head's pool replaced; what no longer matters is compiled out."""

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.name == POOL and context.method_name == "__call__":
            args = (replace(args[0]), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        logits = network.apply(variables, images)
    assert isinstance(logits, jax.Array)
    return logits


def overlay(
    images: UInt8[np.ndarray, "n h w 3"], heat: Float[np.ndarray, "n h w"], strength: float = 0.5
) -> UInt8[np.ndarray, "n h w 3"]:
    """Gray images under the colors of the heat, each in the share of `strength`."""
    gray = images.mean(-1, keepdims=True)
    colors = 255 * colormaps["inferno"](heat)[..., :3]
    return np.rint((1 - strength) * gray + strength * colors).astype(np.uint8)
