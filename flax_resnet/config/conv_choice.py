"""Which convolutions a training takes: XLA's own, or those of cpu_conv.py."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flax_resnet.config.build import build_model
from flax_resnet.models.cpu import conv as cpu_conv
from flax_resnet.models.layers import Convolve

CONVOLVE: dict[str, Convolve] = {"native": None, "winograd": cpu_conv.conv_general_dilated}

# Measured on 2 cores with the revised network at batch 128, which has 5 such convolutions of 189
# million multiply-adds an image: 14 s of compilation against 2, 9.5 ms an image against 20.5.
EXTRA_COMPILE_SECONDS = 2.5  # a convolution
SAVED_SECONDS = 5.8e-11  # a multiply-add (forward), over a training step


def winograd_work(config: ConfigDict, image_shape: tuple[int, int, int]) -> list[int]:
    """Multiply-adds, an image and forward, of each convolution that would go through winograd.py.

    Nothing is computed: the network is traced on shapes.
    """
    work: list[int] = []

    def count(lhs: jax.Array, rhs: jax.Array, strides: Any, *args: Any, **kwargs: Any) -> Any:
        y = lax.conv_general_dilated(lhs, rhs, strides, *args, **kwargs)
        if rhs.shape[0] == 3 and cpu_conv.uses_winograd(lhs.shape, strides[0]):
            work.append(y.size * math.prod(rhs.shape[:3]))
        return y

    model = build_model(config, num_classes=1, convolve=count)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), images)
    return work


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
    work = winograd_work(config, image_shape)
    saved = total_images * sum(work) * SAVED_SECONDS
    return "winograd" if saved > EXTRA_COMPILE_SECONDS * len(work) else "native"
