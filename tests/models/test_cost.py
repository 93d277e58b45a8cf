"""The formula against the network itself."""

import dataclasses
from typing import Any

import pytest
from jax import lax

from flax_resnet.models.cost import Convolution, convolutions, count, map_shape
from flax_resnet.models.designs import MODELS, Design
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.summary import ImageShape, summarize

CIFAR, ODD = (32, 32, 3), (45, 70, 1)

DESIGNS = {
    "revised": (MODELS["revised"], CIFAR),
    "kernels and pool of its own": (
        Design((2, 1, 2), (8, 12, 18), (3, 5, 7), (5, 3, 1), 2),
        ODD,
    ),
    "option A": (MODELS["resnet20"], CIFAR),
    "plain": (MODELS["plain20"], CIFAR),
    "imagenet": (MODELS["imagenet_resnet18"], ODD),
    "bottleneck": (MODELS["imagenet_resnet50"], ODD),
    "squeeze-and-excitation after the stem": (MODELS["efficient_resnet"], CIFAR),
    "squeeze-and-excitation in blocks": (
        dataclasses.replace(MODELS["imagenet_resnet50"], squeeze_excitation="blocks"),
        ODD,
    ),
    "squeeze-and-excitation after whitening": (
        dataclasses.replace(MODELS["airbench94"], squeeze_excitation="stem"),
        CIFAR,
    ),
    "whitened and pooled": (MODELS["airbench94"], CIFAR),
    "whitened and pooled, residual": (MODELS["best_5m"], (37, 50, 1)),
    "pooled, with a stem of its own": (
        Design((2, 1), (8, 12), (3, 5), (1, 1), None, downsample="pool", head_bias=False),
        ODD,
    ),
    "no scales, one convolution a block": (
        Design((2, 1), (8, 12), (3, 5), (3, 1), None, "single", norm_scale=False),
        ODD,
    ),
    "bottleneck that strides in its 3x3": (
        Design((1, 2), (8, 8), (3, 5), (1, 3), None, "bottleneck", bottleneck_stride="3x3"),
        CIFAR,
    ),
}


@pytest.mark.parametrize(("design", "image_shape"), DESIGNS.values(), ids=DESIGNS)
def test_the_formula_counts_what_the_network_computes(design: Design, image_shape: ImageShape):
    made: list[Convolution] = []

    def convolve(x: Any, kernel: Any, strides: Any, *args: Any, **kwargs: Any) -> Any:
        y = lax.conv_general_dilated(x, kernel, strides, *args, **kwargs)
        size, _, channels, features = kernel.shape
        made.append(Convolution(size, strides[0], channels, features, (y.shape[1], y.shape[2])))
        return y

    traced = summarize(ResNet(design, 10, convolve=convolve), image_shape)
    assert convolutions(design, image_shape) == made
    cost = count(design, 10, image_shape)
    assert (cost.params, cost.multiply_adds) == (traced.params, traced.multiply_adds)
    pooled = made[-1].outputs
    assert map_shape(design, image_shape) == pooled
