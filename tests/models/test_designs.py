"""Every named design: exact parameter count, output shape, and the paper's Figure 3."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import count_parameters, summarize

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)

# He et al. 2016, the paper's Figure 4(b, c), and Figure 3's networks as published elsewhere.
# The depths between 20 and 56 and 110 follow from the formula tested below.
PARAMETERS = {
    "revised": 4_903_242,
    "resnet18": 11_173_962,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "plain20": 269_722,
    "plain56": 853_018,
    "efficient_resnet": 4_697_742,
    "imagenet_resnet18": 11_689_512,
    "imagenet_resnet34": 21_797_672,
    "imagenet_resnet50": 25_557_032,
    "imagenet_resnet101": 44_549_160,
    "imagenet_resnet152": 60_192_808,
    # The sums of the authors' layers: whitening 288 + 24, convolutions, biases of BatchNorm, head.
    "airbench94": 1_971_640,
    "airbench95": 4_604_728,
    "best_5m": 4_844_440,
}

# Figure 3's last row, "FLOPs", which are multiply-adds.
FIGURE_3 = {
    "imagenet_resnet18": 1.8e9,
    "imagenet_resnet34": 3.6e9,
    "imagenet_resnet50": 3.8e9,
    "imagenet_resnet101": 7.6e9,
    "imagenet_resnet152": 11.3e9,
}


def build(name: str) -> tuple[ResNet, tuple[int, int, int]]:
    """The named network and the shape of its images."""
    if name.startswith("imagenet"):
        return ResNet(MODELS[name], num_classes=1000), IMAGENET
    return ResNet(MODELS[name], num_classes=10), CIFAR


def test_every_model_has_a_parameter_count_here():
    assert set(MODELS) == set(PARAMETERS), (
        f"not in this test's table: {sorted(set(MODELS) - set(PARAMETERS))}; "
        f"not in MODELS: {sorted(set(PARAMETERS) - set(MODELS))}"
    )


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_exact(name):
    model, image_shape = build(name)
    params = count_parameters(model, image_shape)
    assert params == PARAMETERS[name], f"{name}: {params:,} parameters, not {PARAMETERS[name]:,}"


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_batch_by_classes(name):
    model, image_shape = build(name)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)
    expected = (2, model.num_classes)
    assert logits.shape == expected, f"{name}: logits {logits.shape}, not {expected}"
    assert logits.dtype == jnp.float32, f"{name}: logits are {logits.dtype}"


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_he_networks_have_6n_plus_2_layers_and_as_many_parameters_as_the_formula(depth):
    n = (depth - 2) // 6
    stem, head = 27 * 16 + 2 * 16, 64 * 10 + 10
    stage1 = 2 * n * (9 * 16 * 16 + 2 * 16)
    stage2 = 9 * 16 * 32 + (2 * n - 1) * 9 * 32 * 32 + 2 * n * 2 * 32
    stage3 = 9 * 32 * 64 + (2 * n - 1) * 9 * 64 * 64 + 2 * n * 2 * 64
    assert PARAMETERS[f"resnet{depth}"] == stem + stage1 + stage2 + stage3 + head
    weights = [row for row in summarize(*build(f"resnet{depth}")).rows if row.multiply_adds]
    assert len(weights) == depth


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        pytest.param(
            Design((1, 1, 1, 1), (64, 128, 256, 512), (3, 3, 3, 3), (3, 3, 3, 3), 4),
            6_279_498,
            id="revised with the text's 3x3 shortcuts",
        ),
        pytest.param(
            Design((4, 4, 3), (64, 128, 256), (3, 3, 3), (1, 1, 1), 8),
            4_697_162,
            id="arXiv 2306.12100 without squeeze-and-excitation",
        ),
        pytest.param(
            dataclasses.replace(MODELS["resnet20"], shortcut="projection"),
            272_474,
            id="ResNet-20 with projections",
        ),
        pytest.param(
            dataclasses.replace(MODELS["resnet56"], shortcut="projection"),
            855_770,
            id="ResNet-56 with projections",
        ),
    ],
)
def test_variant_parameter_count_is_exact(design, expected):
    params = count_parameters(ResNet(design, num_classes=10), CIFAR)
    assert params == expected, f"{params:,} parameters, not {expected:,}"


@pytest.mark.parametrize("name", FIGURE_3)
def test_multiply_adds_are_figure_3s_within_two_percent(name):
    multiply_adds = summarize(*build(name)).multiply_adds
    ratio = multiply_adds / FIGURE_3[name]
    assert abs(ratio - 1) < 0.02, f"{name}: {multiply_adds:,}, {ratio:.4f} of Figure 3's"


def test_the_stride_in_the_3x3_of_a_bottleneck_is_not_figure_3s():
    design = dataclasses.replace(MODELS["imagenet_resnet50"], bottleneck_stride="3x3")
    summary = summarize(ResNet(design, num_classes=1000), IMAGENET)
    assert summary.params == PARAMETERS["imagenet_resnet50"]
    assert summary.multiply_adds == pytest.approx(4.1e9, rel=0.01)


def test_the_revised_network_costs_half_a_gflop_an_image():
    multiply_adds = summarize(*build("revised")).multiply_adds
    assert 2 * multiply_adds / 1e9 == pytest.approx(0.507, abs=5e-4)
