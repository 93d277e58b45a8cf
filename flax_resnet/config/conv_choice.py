"""What computes a run's convolutions: XLA, or models/cpu."""

import functools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.load import design_of
from flax_resnet.models.cost import Convolution, ImageShape, convolutions
from flax_resnet.models.cpu import conv as cpu_conv
from flax_resnet.models.cpu.probe import onednn_speedup
from flax_resnet.models.designs import Design
from flax_resnet.models.layers import Convolve
from flax_resnet.process.paths import default_cache_dir

CONVOLVE: dict[str, Convolve] = {
    "native": None,
    "winograd": cpu_conv.without_onednn,
    "onednn": cpu_conv.fastest,
    "onednn+winograd": functools.partial(cpu_conv.fastest, with_winograd=True),
}

# The convolutions of an evaluation, and of an epoch's short last batch, which must compile fast.
WITHOUT_WINOGRAD = {
    "native": "native",
    "winograd": "native",
    "onednn": "onednn",
    "onednn+winograd": "onednn",
}

# Measured on 2 cores with the revised network at batch 128, which has 5 such convolutions of 189
# million multiply-adds an image: 14 s of compilation against 2, 9.5 ms an image against 20.5.
EXTRA_COMPILE_SECONDS = 2.5  # a convolution
SAVED_SECONDS = 5.8e-11  # a multiply-add (forward), over a training step
# Estimates: what oneDNN saves of XLA's time, where it is the faster at all; to find that out.
ONEDNN_SAVED_SECONDS = 3e-11
PROBE_SECONDS = 4.0


def choose_conv(
    config: ConfigDict,
    image_shape: ImageShape,
    total_images: int,
    devices: Sequence[Any],
    recorded: str | None = None,
) -> str:
    """What computes the convolutions of a run: a key of CONVOLVE.

    'auto' stands for the choice recorded with a resumed run, so that it computes on as it did. A
    new run takes models/cpu where it runs on one CPU device and the time it will save over the
    run's images exceeds what it takes longer to compile, or to find out whether oneDNN is there.

    Args:
      config: checked by config.validate.
      image_shape: (height, width, channels).
      total_images: images that the whole run trains on, all epochs together; one that is only
        evaluated is a third.
      devices: the jax.Devices that share a batch.
      recorded: what an earlier part of the run chose; None: a new run.
    """
    if config.conv != "auto":
        return config.conv
    if recorded is not None:
        return recorded
    if devices[0].platform != "cpu" or len(devices) > 1:
        return "native"
    design = design_of(config)
    work = total_images * sum(c.multiply_adds for c in convolutions(design, image_shape))
    onednn = work * ONEDNN_SAVED_SECONDS > PROBE_SECONDS and (
        onednn_speedup(config.dtype, default_cache_dir()) > 1
    )
    winograd = winograd_work(design, image_shape, onednn) if config.dtype == "float32" else []
    pays = total_images * sum(winograd) * SAVED_SECONDS > EXTRA_COMPILE_SECONDS * len(winograd)
    if onednn:
        return "onednn+winograd" if pays else "onednn"
    return "winograd" if pays else "native"


def winograd_work(design: Design, image_shape: ImageShape, onednn: bool) -> list[int]:
    """Multiply-adds, of an image and forward, of each convolution that winograd.py computes.

    Args:
      design: the network.
      image_shape: (height, width, channels).
      onednn: whether oneDNN computes the others.
    """

    def computes(c: Convolution) -> bool:
        images = 1, *c.outputs, c.channels
        kernel = c.kernel_size, c.kernel_size, c.channels, c.features
        if onednn:
            return cpu_conv.gains_by_winograd(images, kernel, c.strides, c.kernel_size // 2)
        return c.kernel_size == 3 and cpu_conv.uses_winograd(images, c.strides)

    return [c.multiply_adds for c in convolutions(design, image_shape) if computes(c)]
