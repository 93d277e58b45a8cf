"""The layer table: rows by hand, totals, sizes and text."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import Row, Summary, count_parameters, format_summary, summarize

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
TINY = Design((1, 1), (4, 8), (3, 3), (1, 1), 2)


def build(name: str) -> tuple[ResNet, tuple[int, int, int]]:
    """The named network with 1000 classes, and the shape of its images."""
    image_shape = IMAGENET if name.startswith("imagenet") else CIFAR
    return ResNet(MODELS[name], num_classes=1000), image_shape


@functools.cache
def summary_of(name: str) -> Summary:
    return summarize(*build(name))


@functools.cache
def revised_summary() -> Summary:
    return summarize(ResNet(MODELS["revised"], num_classes=10), CIFAR)


def test_rows_are_the_layers_of_the_forward_pass_in_order():
    rows = summarize(ResNet(TINY, num_classes=10), (8, 8, 3)).rows
    assert rows == (
        Row("stem_conv", "Conv", "3x3, 4, stride 1", (8, 8, 4), 108, 64 * 9 * 3 * 4),
        Row("stem_norm", "BatchNorm", "", (8, 8, 4), 8, 0),
        Row("stage1_block1/conv1", "Conv", "3x3, 4, stride 1", (8, 8, 4), 144, 64 * 144),
        Row("stage1_block1/norm1", "BatchNorm", "", (8, 8, 4), 8, 0),
        Row("stage1_block1/conv2", "Conv", "3x3, 4, stride 1", (8, 8, 4), 144, 64 * 144),
        Row("stage1_block1/norm2", "BatchNorm", "", (8, 8, 4), 8, 0),
        Row("stage2_block1/conv1", "Conv", "3x3, 8, stride 2", (4, 4, 8), 288, 16 * 288),
        Row("stage2_block1/norm1", "BatchNorm", "", (4, 4, 8), 16, 0),
        Row("stage2_block1/conv2", "Conv", "3x3, 8, stride 1", (4, 4, 8), 576, 16 * 576),
        Row("stage2_block1/norm2", "BatchNorm", "", (4, 4, 8), 16, 0),
        Row("stage2_block1/shortcut_conv", "Conv", "1x1, 8, stride 2", (4, 4, 8), 32, 16 * 32),
        Row("stage2_block1/shortcut_norm", "BatchNorm", "", (4, 4, 8), 16, 0),
        Row("head_pool", "AvgPool", "2x2", (2, 2, 8), 0, 0),
        Row("head", "Dense", "32 to 10", (10,), 330, 320),
    )


def test_imagenet_stem_has_its_max_pool_and_the_head_pools_the_whole_map():
    rows = {
        row.path: row for row in summarize(ResNet(MODELS["imagenet_resnet18"], 9), IMAGENET).rows
    }
    assert list(rows)[:3] == ["stem_conv", "stem_norm", "stem_pool"]
    assert rows["stem_conv"].description == "7x7, 64, stride 2"
    assert rows["stem_pool"] == Row("stem_pool", "MaxPool", "3x3, stride 2", (56, 56, 64), 0, 0)
    assert rows["head_pool"] == Row("head_pool", "AvgPool", "7x7", (1, 1, 512), 0, 0)


@pytest.mark.parametrize("name", MODELS)
def test_totals_are_the_sums_of_the_rows(name):
    summary = summary_of(name)
    assert summary.params == sum(row.params for row in summary.rows)
    assert summary.params == count_parameters(*build(name))
    assert summary.multiply_adds == sum(row.multiply_adds for row in summary.rows)


def test_head_pool_row_agrees_with_the_linear_layer():
    for pool_size in (1, 2, 3, 4, None):
        design = dataclasses.replace(TINY, pool_size=pool_size)
        pool, head = summarize(ResNet(design, num_classes=10), (8, 8, 3)).rows[-2:]
        height, width, channels = pool.output_shape
        assert head.description == f"{height * width * channels} to 10"


def test_sizes_are_those_of_float32_arrays():
    summary = summarize(ResNet(TINY, num_classes=10), (8, 8, 3))
    assert summary.params_bytes == 4 * summary.params
    # Means and variances of stem (4), block 1 (4, 4) and block 2 (8, 8, 8).
    assert summary.batch_stats_bytes == 4 * 2 * (3 * 4 + 3 * 8)
    # Six outputs of 8x8x4, six of 4x4x8, the pool's 2x2x8 and ten logits.
    assert summary.activations_bytes == 4 * (6 * 256 + 6 * 128 + 32 + 10)
    assert summary.input_bytes == 4 * 8 * 8 * 3


def test_bfloat16_halves_input_and_activations_but_the_heads():
    full = revised_summary()
    half = summarize(ResNet(MODELS["revised"], 10, dtype=jnp.bfloat16), CIFAR)
    head = 4 * (512 + 10)  # the pool's output and the logits stay in float32
    assert half == dataclasses.replace(
        full,
        activations_bytes=(full.activations_bytes - head) // 2 + head,
        input_bytes=full.input_bytes // 2,
    )


def test_a_mapped_axis_changes_nothing_and_need_not_exist():
    assert summarize(ResNet(MODELS["revised"], 10, axis_name="devices"), CIFAR) == revised_summary()


def test_no_array_is_allocated():
    before = len(jax.live_arrays())
    summary = summarize(ResNet(MODELS["imagenet_resnet152"], num_classes=1000), IMAGENET)
    assert len(jax.live_arrays()) == before
    assert summary.params == 60_192_808


@pytest.mark.parametrize("name", MODELS)
def test_text_is_at_most_100_columns_wide_with_a_line_a_layer(name):
    summary = summary_of(name)
    lines = format_summary(summary, name).splitlines()
    widest = max(lines, key=len)
    assert len(widest) <= 100, f"{len(widest)} columns: {widest}"
    for row in summary.rows:
        assert sum(line.split()[0] == row.path for line in lines) == 1, row.path


def test_text_shows_figure_4cs_total_and_sizes():
    lines = format_summary(revised_summary(), "revised").splitlines()
    assert lines[0] == "revised"
    assert "Total parameters: 4,903,242" in lines
    assert "Multiply-adds:    0.253 G an image, forward" in lines
    # 4,903,242 * 4 / 2**20, and 32 * 32 * 3 * 4 / 2**20.
    assert [line.split()[-1] for line in lines if line.startswith("Parameters (MB)")] == ["18.70"]
    assert [line.split()[-1] for line in lines if line.startswith("Input (MB)")] == ["0.01"]


def test_text_of_a_row_has_its_columns():
    lines = format_summary(revised_summary(), "revised").splitlines()
    row = next(line for line in lines if line.startswith("stage4_block1/conv1"))
    assert row.split() == [
        *("stage4_block1/conv1", "Conv", "3x3,", "512,", "stride", "2"),
        *("4", "x", "4", "x", "512", "1,179,648", "18,874,368"),
    ]
