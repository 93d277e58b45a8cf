import jax
import pytest

from flax_resnet.config import load_config
from flax_resnet.conv_choice import choose_conv, convolutions
from tests.conftest import ROOT

IMAGE = (32, 32, 3)


def config(*overrides: str):
    return load_config(ROOT / "configs/revised.py", [f"--config.{o}" for o in overrides])


def test_the_convolutions_are_those_of_the_design():
    found = convolutions(config(), IMAGE)
    assert len(found) == 1 + 8 + 3  # stem, two a block, projections
    # All multiply-adds of the network but the linear layer's 5,120.
    assert sum(c.multiply_adds for c in found) == 253_432_832 - 5_120


@pytest.mark.parametrize(
    ("overrides", "images", "devices", "expected"),
    [
        ((), 2_500_000, 1, "winograd"),
        ((), 128, 1, "native"),  # it would not pay
        (("dtype=bfloat16",), 2_500_000, 1, "native"),
        ((), 2_500_000, 2, "native"),
        (("conv=winograd",), 128, 2, "winograd"),
        (("conv=native",), 2_500_000, 1, "native"),
    ],
)
def test_auto_takes_winograd_on_one_cpu_where_it_pays(overrides, images, devices, expected):
    chosen = choose_conv(config(*overrides), IMAGE, images, jax.devices()[:devices])
    assert chosen == expected
