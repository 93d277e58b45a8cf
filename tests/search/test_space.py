"""The closed form against the traced network; the ranges; the ranking."""

import dataclasses
import random
from typing import Literal

import pytest

from flax_resnet.models.cost import count, depth
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import summarize
from flax_resnet.process.errors import UserError
from flax_resnet.search.published import PUBLISHED
from flax_resnet.search.space import (
    MOST_DESIGNS,
    PAPER_DESIGN,
    Candidate,
    RankBy,
    Space,
    candidate,
    describe,
    explore,
)

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)


def random_design(rng: random.Random) -> Design:
    """Any design that ResNet builds, narrow, with up to four stages."""
    n = rng.randint(1, 4)

    def values(*choices: int) -> tuple[int, ...]:
        return tuple(rng.choice(choices) for _ in range(n))

    block: Literal["basic", "bottleneck"] = rng.choice(["basic", "bottleneck"])
    channels = values(2, 3, 4, 6)
    return Design(
        values(1, 2, 3),
        tuple(sorted(channels)),  # 'pad' can only add channels
        values(1, 3, 5),
        values(1, 3, 5),
        rng.choice([None, 1, 2]),
        block=block,
        shortcut=rng.choice(["projection", "pad", "none"] if block == "basic" else ["projection"]),
        stem=rng.choice(["cifar", "imagenet"]),
        bottleneck_stride=rng.choice(["1x1", "3x3"]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_closed_form_equals_the_traced_network(seed):
    rng = random.Random(seed)
    design, classes = random_design(rng), rng.randint(2, 12)
    # Odd sides and oblong images too: a stride of 2 takes the upper half.
    shape = (rng.randint(64, 80), rng.randint(64, 80), rng.choice([1, 3]))
    traced = summarize(ResNet(design, classes), shape)
    cost = count(design, classes, shape)
    assert (cost.params, cost.multiply_adds) == (traced.params, traced.multiply_adds), design


def test_designs_of_the_default_space_equal_the_traced_network():
    for design in random.Random(0).sample(list(Space().designs()), 8):
        traced = summarize(ResNet(design, 10), CIFAR)
        found = candidate(design)
        assert (found.params, found.multiply_adds) == (traced.params, traced.multiply_adds), design


def test_published_numbers_of_parameters():
    projections = dataclasses.replace(MODELS["resnet20"], shortcut="projection")
    assert count(MODELS["revised"], 10, CIFAR).params == 4_903_242
    assert count(projections, 10, CIFAR).params == 272_474
    assert count(MODELS["resnet56"], 10, CIFAR).params == 853_018
    assert count(MODELS["imagenet_resnet50"], 1000, IMAGENET).params == 25_557_032


def test_depth_is_the_number_in_the_networks_name():
    depths = {name: depth(design) for name, design in MODELS.items()}
    assert depths.pop("revised") == 10
    unnumbered = "efficient_resnet", "airbench94", "airbench95", "best_5m"
    assert [depths.pop(name) for name in unnumbered] == [24, 8, 8, 11]
    for name, found in depths.items():
        assert name.endswith(f"net{found}") or name == f"plain{found}"


def test_published_results_have_their_published_parameters():
    efficient = Design((4, 4, 3), (64, 128, 256), (3, 3, 3), (1, 1, 1), 8)
    traced = summarize(ResNet(efficient, 10), CIFAR)
    assert traced.params == 4_697_162
    assert [(p.cost.params, p.cost.multiply_adds) for p in PUBLISHED] == [
        (4_903_242, 253_432_832),
        (4_697_742, traced.multiply_adds + 2 * 64 * 4),
    ]


@pytest.mark.parametrize(
    "space",
    [
        Space(),
        Space(num_stages=(1, 3), blocks=(2, 2, 1), growths=(1.5, 2.0), first_channels=(4, 5)),
        Space(kernel_sizes=(3, 5), blocks=(1,), first_channels=(8,), mixed_kernels=True),
        Space(num_stages=(2, 4), pool_sizes=(None, 4, 8, 16), blocks=(1,)),
        Space(shortcut="pad", blocks=(1, 2)),
        Space(block="bottleneck", mixed_kernels=True, blocks=(1,), first_channels=(8,)),
    ],
)
def test_size_is_the_number_of_designs_and_no_two_are_equal(space):
    designs = list(space.designs())
    assert len(set(designs)) == len(designs) == space.size()
    if space.block == "basic":  # nor do two differ in K_1 alone, which acts nowhere
        acting = {dataclasses.replace(d, shortcut_kernels=d.shortcut_kernels[1:]) for d in designs}
        assert len(acting) == len(designs)


def test_default_space_is_the_product_of_its_ranges():
    # First channels times K times B: layers of 4 choices each.
    assert Space().size() == 9 * 2 * (4**3 + 4**4)


def test_a_pool_of_the_maps_own_size_is_the_whole_map_and_a_larger_one_no_design():
    space = Space(num_stages=(3, 4), blocks=(1,), first_channels=(8,), pool_sizes=(None, 4, 8))
    pools = {(len(d.stage_sizes), d.pool_size) for d in space.designs()}
    assert pools == {(3, None), (3, 4), (4, None)}


def test_explore_keeps_exactly_the_designs_within_the_bound():
    space = Space(blocks=(1, 2), first_channels=(32, 64))
    everything = {d: count(d, 10, CIFAR).params for d in space.designs()}
    found = explore(space, 4_903_242)
    assert {c.design for c in found} == {d for d, p in everything.items() if p <= 4_903_242}
    paper = next(c for c in found if c.design == PAPER_DESIGN)
    assert paper == Candidate(PAPER_DESIGN, 4_903_242, 253_432_832, 10)
    assert PAPER_DESIGN not in {c.design for c in explore(space, 4_903_241)}


def test_classes_and_image_shape_change_the_figures():
    (small,) = explore(Space((3,), (1,), (8,), shortcut_kernels=(1,)), 10**6, 100, (28, 28, 3))
    traced = summarize(ResNet(small.design, 100), (28, 28, 3))
    assert (small.params, small.multiply_adds) == (traced.params, traced.multiply_adds)


@pytest.mark.parametrize(
    ("rank_by", "key"),
    [
        ("multiply-adds", lambda c: (c.multiply_adds, c.depth)),
        ("depth", lambda c: (c.depth, c.multiply_adds)),
        ("params", lambda c: (c.params, c.multiply_adds)),
    ],
)
def test_the_highest_comes_first(rank_by: RankBy, key):
    found = explore(Space(), 5_000_000, rank_by=rank_by)
    ranks = [key(c) for c in found]
    assert ranks == sorted(ranks, reverse=True)


def test_too_many_designs_are_refused_at_once():
    with pytest.raises(UserError):
        explore(Space(num_stages=(8,), blocks=tuple(range(1, 9))), 5_000_000)
    assert 8**8 > MOST_DESIGNS


def test_a_design_is_described_in_the_papers_letters():
    assert describe(PAPER_DESIGN) == "B 1,1,1,1; C 64,128,256,512; F 3; K 1; P whole map"
    mixed = Design((1, 2), (4, 8), (3, 5), (1, 3), 2, shortcut="pad")
    assert describe(mixed) == "B 1,2; C 4,8; F 3,5; P 2"
