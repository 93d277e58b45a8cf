"""What stands before the first stage. Functions: their layers are the network's own."""

from collections.abc import Mapping
from typing import Any

from flax_resnet.models.layers import Images, Layers, MaxPool, NewImages
from flax_resnet.models.whitening import KERNEL, WhiteningConv


def cifar(layers: Layers, channels: int, images: Images, train: bool) -> NewImages:
    """3x3 at stride 1: keeps the image size."""
    x = layers.conv(channels, 3, name="stem_conv")(images)
    return layers.activate(layers.norm(name="stem_norm")(x, train))


def imagenet(layers: Layers, channels: int, images: Images, train: bool) -> NewImages:
    """7x7 at stride 2, then a 3x3 max pool at stride 2 (He et al. 2016, table 1)."""
    x = layers.conv(channels, 7, 2, name="stem_conv")(images)
    x = layers.activate(layers.norm(name="stem_norm")(x, train))
    return MaxPool(name="stem_pool")(x)


def whiten(layers: Layers, channels: int, images: Images, train: bool) -> NewImages:
    """Whitened 2x2 patches, of as many channels as they have: 31 pixels of 32, no BatchNorm."""
    x = WhiteningConv(layers.dtype, layers.param_dtype, layers.convolve, name="stem_whiten")(images)
    return layers.activate(x)


STEMS = {"cifar": cifar, "imagenet": imagenet, "whiten": whiten}


def first_kernel(params: Mapping[str, Any]) -> Any:
    """The kernel [height, width, 3, features] of the first convolution, whatever the stem."""
    stem, kernel = KERNEL if KERNEL[0] in params else ("stem_conv", "kernel")
    return params[stem][kernel]
