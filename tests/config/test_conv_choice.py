import jax
import pytest

from flax_resnet.config import conv_choice
from flax_resnet.config.conv_choice import choose_conv, winograd_work
from flax_resnet.config.load import load_config
from flax_resnet.models.designs import MODELS
from tests.conftest import ROOT

IMAGE = (32, 32, 3)


def config(*overrides: str):
    return load_config(ROOT / "configs/revised.py", [f"--config.{o}" for o in overrides])


def test_the_work_is_that_of_the_3x3_convolutions_of_stride_1():
    # Two in the first block and one in each other, 37,748,736 multiply-adds each (the image
    # halves where the channels double); not the stem, which has 3 channels.
    for onednn in (True, False):
        assert winograd_work(MODELS["revised"], IMAGE, onednn) == [32 * 32 * 9 * 64 * 64] * 5


def test_with_onednn_the_work_is_where_winograd_is_faster():
    # Maps of 15 and 7 pixels are padded to whole tiles; not the 24 channels before, the 3x3 after.
    assert len(winograd_work(MODELS["airbench94"], IMAGE, onednn=True)) == 4
    assert len(winograd_work(MODELS["resnet20"], IMAGE, onednn=True)) == 5  # those of 64 channels


@pytest.mark.parametrize(
    ("overrides", "images", "devices", "speedup", "expected"),
    [
        ((), 2_500_000, 1, 0, "winograd"),
        ((), 2_500_000, 1, 1.5, "onednn+winograd"),
        ((), 2_500_000, 1, 0.9, "winograd"),
        ((), 1_000, 1, 1.5, "onednn"),  # what takes long to compile would not pay
        ((), 128, 1, None, "native"),  # nor would asking
        (("dtype=bfloat16",), 2_500_000, 1, 1.5, "onednn"),
        (("dtype=bfloat16",), 2_500_000, 1, 0, "native"),
        ((), 2_500_000, 2, None, "native"),
        (("conv=winograd",), 128, 2, None, "winograd"),
        (("conv=native",), 2_500_000, 1, None, "native"),
    ],
)
def test_auto_takes_on_one_cpu_what_pays(
    overrides, images, devices, speedup, expected, monkeypatch
):
    def answer(*_):
        assert speedup is not None, "asked in vain"
        return speedup

    monkeypatch.setattr(conv_choice, "onednn_speedup", answer)
    chosen = choose_conv(config(*overrides), IMAGE, images, jax.devices()[:devices])
    assert chosen == expected


@pytest.mark.parametrize("recorded", ["winograd", "native"])
def test_auto_keeps_the_recorded_choice_and_a_named_one_wins(recorded):
    arguments = IMAGE, 128, jax.devices()[:2], recorded
    assert choose_conv(config(), *arguments) == recorded
    assert choose_conv(config("conv=native"), *arguments) == "native"
