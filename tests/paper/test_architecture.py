import dataclasses

import pytest

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.paper.architecture import Architecture, read_architecture
from flax_resnet.paper.architecture_figure import architecture_figure

TINY = Design((1, 2), (4, 8), (3, 3), (1, 1), None)


def read(design: Design) -> Architecture:
    return read_architecture(ResNet(design, 10), (32, 32, 3))


def all_params(architecture: Architecture) -> int:
    boxes = sum(box.params for box in (*architecture.stem, *architecture.head))
    for stage in architecture.stages:
        for block in stage:
            own = [*block.branch, *([block.projection] if block.projection else [])]
            boxes += block.repeats * sum(box.params for box in own)
    return boxes


@pytest.mark.parametrize(
    "name", ["revised", "resnet18", "plain20", "resnet20", "efficient_resnet", "best_5m"]
)
def test_boxes_hold_every_parameter(name: str):
    architecture = read(MODELS[name])
    assert all_params(architecture) == architecture.params


def test_revised_network_is_that_of_figure_4():
    architecture = read(MODELS["revised"])
    blocks = [stage[0] for stage in architecture.stages]
    assert [len(stage) for stage in architecture.stages] == [1, 1, 1, 1]
    assert [block.shortcut for block in blocks] == ["identity", *["projection"] * 3]
    assert [b.text for b in blocks[1].branch] == [
        "3x3 conv, 128, stride 2",
        "3x3 conv, 128, stride 1",
    ]
    assert blocks[1].projection is not None
    assert blocks[1].projection.text == "1x1 conv, 128, stride 2"
    assert [box.text for box in architecture.head] == ["average pool, 4x4", "linear, 512 to 10"]
    assert [box.after for box in blocks[0].branch] == ["BatchNorm, ReLU", "BatchNorm"]


def test_squeeze_and_excitation_has_a_box_without_the_blocks_relu_before_it():
    (block,), _ = read(dataclasses.replace(TINY, squeeze_excitation="blocks")).stages
    assert [box.after for box in block.branch] == ["BatchNorm, ReLU", "BatchNorm", ""]
    assert block.branch[-1].text == "squeeze-excitation, 4 to 1 to 4"
    assert block.shortcut == "identity"
    stem = read(MODELS["efficient_resnet"]).stem
    assert [(box.after, box.params) for box in stem] == [("BatchNorm, ReLU", 1856), ("", 580)]


def test_pooled_convolutions_and_other_activations_are_told():
    architecture = read(MODELS["best_5m"])
    (stem,) = architecture.stem
    assert (stem.text, stem.after) == ("2x2 whitening, 24, stride 1", "GELU")
    entry, block = architecture.stages[1]
    assert [(box.text, box.after) for box in entry.branch] == [
        ("3x3 conv, 256, stride 1", ""),
        ("max pool, 2x2", "BatchNorm, GELU"),
    ]
    assert (entry.shortcut, block.shortcut, block.activation) == ("none", "identity", "GELU")
    assert [box.after for box in block.branch] == ["BatchNorm, GELU", "BatchNorm"]
    assert [box.text for box in architecture.head] == ["max pool, 3x3", "linear, 352 to 10"]


def test_blocks_alike_are_drawn_once():
    first, second = read(dataclasses.replace(TINY, stage_sizes=(3, 3))).stages
    assert [block.repeats for block in first] == [3]
    kinds = [(block.shortcut, block.repeats) for block in second]
    assert kinds == [("projection", 1), ("identity", 2)]


@pytest.mark.parametrize(
    ("shortcut", "kinds"),
    [("pad", ["pad", "identity"]), ("none", ["none", "none"])],
)
def test_shortcuts_without_parameters_are_told_apart(shortcut: str, kinds: list[str]):
    second = read(dataclasses.replace(TINY, shortcut=shortcut)).stages[1]
    assert [block.shortcut for block in second] == kinds
    last = second[0].branch[-1]
    assert last.after == ("BatchNorm, ReLU" if shortcut == "none" else "BatchNorm")


@pytest.mark.parametrize("name", ["revised", "plain20", "resnet56", "best_5m"])
def test_drawing_shows_every_layer_inside_its_edges(name: str):
    architecture = read(MODELS[name])
    figure = architecture_figure(architecture, "a title")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    written = [text.get_text() for text in axes.texts]
    for stage in architecture.stages:
        for block in stage:
            assert all(box.text in written for box in block.branch)
    width, height = figure.get_size_inches()
    for text in axes.texts:
        box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert 0 <= box.x0 <= box.x1 <= width and 0 <= box.y0 <= box.y1 <= height, text


def test_bottlenecks_are_drawn():
    design = MODELS["imagenet_resnet50"]
    architecture = read_architecture(ResNet(design, 1000), (224, 224, 3))
    assert architecture.stem[-1].text == "max pool, 3x3, stride 2"
    assert [sum(b.repeats for b in stage) for stage in architecture.stages] == [3, 4, 6, 3]
    architecture_figure(architecture, "ResNet-50").draw_without_rendering()
