"""Blocks, shortcuts, stem and head of the network, on shapes or hand-made weights."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.models.blocks import BLOCKS, ResidualBlock
from flax_resnet.models.designs import MODELS, Design
from flax_resnet.models.resnet import ResNet

KEY = jax.random.key(0)
SMALL = Design((1, 1), (4, 8), (3, 3), (1, 1), None)


def block(
    shortcut: Literal["projection", "pad", "none"] = "projection",
    channels: int = 4,
    strides: int = 1,
    kind: Literal["basic", "bottleneck"] = "basic",
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1",
) -> ResidualBlock:
    design = dataclasses.replace(
        SMALL,
        stage_channels=(channels,) * 2,
        block=kind,
        shortcut=shortcut,
        bottleneck_stride=bottleneck_stride,
    )
    return BLOCKS[kind](design, stage=0, strides=strides)


def init(module: ResNet | ResidualBlock, inputs: jax.Array) -> Any:
    return module.init(KEY, inputs, False)


def drawn(module: ResNet, inputs: jax.Array) -> Any:
    """Variables by numpy: compiling the initial weights' random numbers takes seconds."""
    rng = np.random.default_rng(0)
    variables = jax.eval_shape(lambda x: init(module, x), inputs)
    return jax.tree.map(
        lambda leaf: rng.uniform(-1, 1, leaf.shape).astype(np.float32) ** 2, variables
    )


def apply(
    module: ResNet | ResidualBlock,
    variables: Any,
    inputs: jax.Array,
    train: bool = False,
    **options: Any,
) -> Any:
    return jax.jit(lambda v, x: module.apply(v, x, train, **options))(variables, inputs)


def shapes(model: ResNet, image_shape: tuple[int, int, int], train: bool = False) -> Any:
    """Shapes of the logits, of all variables and of every submodule's output; no compute."""
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def call(x: jax.Array) -> tuple[jax.Array, Any]:
        variables = init(model, x)
        mutable = ["batch_stats", "intermediates"]
        logits, state = apply(
            model, variables, x, train, mutable=mutable, capture_intermediates=True
        )
        return logits, variables | state

    logits, variables = jax.eval_shape(call, images)
    return {"logits": logits} | variables


def output_of(traced: Any, *path: str) -> Any:
    """What the submodule at `path` gave, of a tree with captured intermediates."""
    node = traced["intermediates"]
    for name in path:
        node = node[name]
    return node["__call__"][0]


def zeros(module: ResidualBlock, inputs: jax.Array) -> Any:
    """Variables that make the block's branch zero."""
    variables = jax.eval_shape(lambda x: init(module, x), inputs)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)


def test_basic_block_keeps_the_identity_when_shapes_match():
    inputs = jax.random.normal(KEY, (2, 6, 6, 4))
    variables = zeros(block(), inputs)
    assert set(variables["params"]) == {"conv1", "norm1", "conv2", "norm2"}
    np.testing.assert_array_equal(apply(block(), variables, inputs), jax.nn.relu(inputs))


@pytest.mark.parametrize(("channels", "strides"), [(8, 1), (4, 2), (8, 2)])
def test_projection_appears_where_channels_or_size_change(channels, strides):
    inputs = jnp.zeros((2, 6, 6, 4))
    module = block(channels=channels, strides=strides)
    variables = zeros(module, inputs)
    out = jax.eval_shape(lambda: apply(module, variables, inputs))
    assert out.shape == (2, 6 // strides, 6 // strides, channels)
    assert variables["params"]["shortcut_conv"]["kernel"].shape == (1, 1, 4, channels)
    assert "shortcut_norm" in variables["params"]


def test_shortcut_kernel_and_block_kernel_are_the_designs():
    design = dataclasses.replace(SMALL, kernel_sizes=(3, 5), shortcut_kernels=(1, 3))
    params = shapes(ResNet(design, num_classes=10), (8, 8, 3))["params"]["stage2_block1"]
    assert params["conv1"]["kernel"].shape == (5, 5, 4, 8)
    assert params["conv2"]["kernel"].shape == (5, 5, 8, 8)
    assert params["shortcut_conv"]["kernel"].shape == (3, 3, 4, 8)


def test_addition_comes_before_the_last_relu():
    # The branch gives norm2's bias, -1, everywhere: relu(x + branch) is then relu(x - 1).
    inputs = jnp.array([0.25, 1.0, 3.0, 0.0]).reshape(1, 1, 1, 4)
    variables = zeros(block(), inputs)
    variables["params"]["norm2"]["bias"] = -jnp.ones(4)
    out = apply(block(), variables, inputs)
    np.testing.assert_array_equal(out.ravel(), [0, 0, 2, 0])


def test_pad_shortcut_takes_every_other_pixel_and_adds_zero_channels():
    # One image of 4x4 pixels and 2 channels: channel 0 counts 1 to 16, channel 1 is 100 more.
    channel = jnp.arange(1.0, 17.0).reshape(1, 4, 4)
    inputs = jnp.stack([channel, channel + 100], axis=-1)
    module = block("pad", channels=4, strides=2)
    variables = zeros(module, inputs)
    names = set(variables["params"])
    assert names == {"conv1", "norm1", "conv2", "norm2"}, "option A has no parameters"
    out = apply(module, variables, inputs)
    np.testing.assert_array_equal(out[0, :, :, 0], [[1, 3], [9, 11]])
    np.testing.assert_array_equal(out[0, :, :, 1], [[101, 103], [109, 111]])
    np.testing.assert_array_equal(out[0, :, :, 2:], np.zeros((2, 2, 2)))


@pytest.mark.parametrize("strides", [1, 2])
def test_plain_block_adds_nothing(strides):
    inputs = 1 + jax.random.uniform(KEY, (2, 4, 4, 4))
    module = block("none", strides=strides)
    variables = zeros(module, inputs)
    assert set(variables["params"]) == {"conv1", "norm1", "conv2", "norm2"}
    assert not apply(module, variables, inputs).any()


def test_plain_and_residual_networks_have_the_same_parameters():
    plain = shapes(ResNet(MODELS["plain20"], num_classes=10), (32, 32, 3))["params"]
    residual = shapes(ResNet(MODELS["resnet20"], num_classes=10), (32, 32, 3))["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, plain) == jax.tree.map(
        lambda leaf: leaf.shape, residual
    )


@pytest.mark.parametrize(("bottleneck_stride", "size"), [("1x1", 4), ("3x3", 8)])
def test_bottleneck_halves_the_image_in_the_convolution_named(bottleneck_stride, size):
    module = block(kind="bottleneck", strides=2, bottleneck_stride=bottleneck_stride)

    def call(x: jax.Array) -> tuple[jax.Array, Any]:
        variables = init(module, x)
        return apply(module, variables, x, False, capture_intermediates=True)

    out, traced = jax.eval_shape(call, jax.ShapeDtypeStruct((2, 8, 8, 6), jnp.float32))
    assert output_of(traced, "conv1").shape == (2, size, size, 4)
    assert output_of(traced, "conv2").shape == (2, 4, 4, 4)
    assert output_of(traced, "conv3").shape == (2, 4, 4, 16)
    assert out.shape == (2, 4, 4, 16)


def test_bottleneck_projects_only_the_first_block_of_each_stage():
    params = shapes(ResNet(MODELS["imagenet_resnet50"], 1000), (224, 224, 3))["params"]
    projected = {name for name, layers in params.items() if "shortcut_conv" in layers}
    assert projected == {f"stage{stage}_block1" for stage in (1, 2, 3, 4)}


def test_revised_network_halves_the_image_at_stages_2_to_4():
    traced = shapes(ResNet(MODELS["revised"], num_classes=10), (32, 32, 3))
    assert output_of(traced, "stem_conv").shape == (2, 32, 32, 64)
    for stage, (size, channels) in enumerate([(32, 64), (16, 128), (8, 256), (4, 512)], start=1):
        assert output_of(traced, f"stage{stage}_block1").shape == (2, size, size, channels)


def test_imagenet_stem_gives_56_pixels_to_the_first_block():
    traced = shapes(ResNet(MODELS["imagenet_resnet18"], num_classes=1000), (224, 224, 3))
    assert traced["params"]["stem_conv"]["kernel"].shape == (7, 7, 3, 64)
    assert output_of(traced, "stem_norm").shape == (2, 112, 112, 64)
    assert output_of(traced, "stage1_block1").shape == (2, 56, 56, 64)
    assert output_of(traced, "stage4_block2").shape == (2, 7, 7, 512)


@pytest.mark.parametrize(
    ("pool_size", "features"), [(None, 8), (4, 8), (2, 4 * 8), (1, 16 * 8), (3, 8)]
)
def test_pool_size_sets_the_features_of_the_linear_layer(pool_size, features):
    # The last map is 4x4 with 8 channels; a pool of 3 has one whole window there.
    design = dataclasses.replace(SMALL, pool_size=pool_size)
    params = shapes(ResNet(design, num_classes=10), (8, 8, 3))["params"]
    assert params["head"]["kernel"].shape == (features, 10)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pool_and_head_average_the_last_map_in_float32(dtype):
    model = ResNet(SMALL, num_classes=2, dtype=dtype)
    images = jax.random.normal(KEY, (3, 8, 8, 3))
    variables = drawn(model, images)
    logits, traced = apply(model, variables, images, capture_intermediates=True)
    head = variables["params"]["head"]
    means = output_of(traced, "stage2_block1").astype(jnp.float32).mean((1, 2))
    np.testing.assert_allclose(logits, means @ head["kernel"] + head["bias"], atol=1e-5)


def test_whole_map_pool_takes_any_image_size():
    model = ResNet(SMALL, num_classes=10)
    assert shapes(model, (32, 32, 3))["params"] == shapes(model, (13, 20, 3))["params"]


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_is_the_blocks_alone(train):
    traced = shapes(ResNet(MODELS["revised"], 10, dtype=jnp.bfloat16), (32, 32, 3), train)
    assert traced["logits"].dtype == jnp.float32
    for collection in ("params", "batch_stats"):
        for path, leaf in jax.tree.leaves_with_path(traced[collection]):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            assert leaf.dtype == jnp.float32, f"{collection} {name} is {leaf.dtype}"
    for name in ("head_pool", "head"):
        assert output_of(traced, name).dtype == jnp.float32, f"output of {name}"
    for path in [("stem_conv",), ("stage2_block1", "norm1"), ("stage4_block1",)]:
        assert output_of(traced, *path).dtype == jnp.bfloat16, f"output of {'/'.join(path)}"


def test_train_mode_updates_every_running_statistic_and_eval_mode_none():
    model = ResNet(SMALL, num_classes=10)
    images = jax.random.normal(KEY, (4, 8, 8, 3))
    variables = drawn(model, images)
    trained, new = apply(model, variables, images, train=True, mutable=["batch_stats"])
    for path, old in jax.tree.leaves_with_path(variables["batch_stats"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = new["batch_stats"]
        for key in path:
            value = value[key.key]
        assert not np.allclose(old, value), f"{name} kept its initial value in train mode"
    evaluated, new = apply(model, variables, images, train=False, mutable=["batch_stats"])
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, variables | new))
    assert not np.allclose(trained, evaluated)
