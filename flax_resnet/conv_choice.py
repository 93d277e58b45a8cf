"""Which convolutions a training takes: XLA's own, or those of cpu_conv.py."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flax_resnet import cpu_conv
from flax_resnet.build import build_model
from flax_resnet.layers import Convolve

CONVOLVE: dict[str, Convolve] = {"native": None, "winograd": cpu_conv.conv_general_dilated}

# Measured on 2 cores with the revised network at batch 128 (5 such convolutions, 189 million
# multiply-adds an image).
EXTRA_COMPILE_SECONDS = 2.5  # a convolution
SAVED_SECONDS = 1.0e-10  # a multiply-add of training, forward and backward


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of a network, for one image.

    Attributes:
      shape: of its input, [1, height, width, channels].
      strides: the same in both directions.
      size: side of its kernel.
      multiply_adds: forward.
    """

    shape: tuple[int, ...]
    strides: int
    size: int
    multiply_adds: int


def convolutions(config: ConfigDict, image_shape: tuple[int, int, int]) -> list[Convolution]:
    """The convolutions of the config's network, in order; nothing is computed."""
    found: list[Convolution] = []

    def record(lhs: jax.Array, rhs: jax.Array, strides: Any, *args: Any, **kwargs: Any) -> Any:
        y = lax.conv_general_dilated(lhs, rhs, strides, *args, **kwargs)
        work = math.prod(y.shape) * math.prod(rhs.shape[:3])
        found.append(Convolution(lhs.shape, strides[0], rhs.shape[0], work))
        return y

    model = build_model(config, num_classes=1, convolve=record)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), images)
    return found


def choose_conv(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    total_images: int,
    devices: Sequence[Any],
) -> str:
    """What computes the convolutions of a training: a key of CONVOLVE.

    'auto' takes cpu_conv where it runs on one CPU device in float32 and the time it will save over
    the run's images exceeds what it takes longer to compile.

    Args:
      config: checked by config.validate.
      image_shape: (height, width, channels).
      total_images: images that the whole run trains on, all epochs together.
      devices: the jax.Devices that share a batch.
    """
    if config.conv != "auto":
        return config.conv
    if devices[0].platform != "cpu" or len(devices) > 1 or config.dtype != "float32":
        return "native"
    fast = [
        c
        for c in convolutions(config, image_shape)
        if c.size == 3 and cpu_conv.uses_winograd(c.shape, c.strides)
    ]
    saved = total_images * sum(c.multiply_adds for c in fast) * SAVED_SECONDS
    return "winograd" if saved > EXTRA_COMPILE_SECONDS * len(fast) else "native"
