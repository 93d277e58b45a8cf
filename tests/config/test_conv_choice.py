import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flax_resnet.config import conv_choice
from flax_resnet.config.conv_choice import (
    choose_conv,
    computable,
    conv_shapes,
    convolve,
    fastest,
    parse_choice,
    words,
)
from flax_resnet.config.load import load_config
from flax_resnet.models.cost import convolutions
from flax_resnet.models.cpu.conv import Shape
from flax_resnet.models.cpu.measure import Timing
from flax_resnet.models.designs import MODELS
from flax_resnet.process.errors import UserError
from tests.conftest import ROOT

IMAGE = (32, 32, 3)
STEM = Shape("float32", 3, 1, 1, 32, 32, 3, 64)
WIDE = Shape("float32", 3, 1, 1, 32, 32, 64, 64)


def config(*overrides: str, name: str = "revised"):
    return load_config(ROOT / f"configs/{name}.py", [f"--config.{o}" for o in overrides])


@pytest.mark.parametrize("name", ["revised", "resnet20", "airbench94", "imagenet_resnet50"])
def test_the_shapes_are_those_of_the_network(name):
    shapes = conv_shapes(config(name=name), IMAGE)
    expected = convolutions(MODELS[name], IMAGE)
    assert shapes.total() == len(expected)
    found = [c for s, n in shapes.items() for c in [(s.size, s.channels, s.features)] * n]
    assert sorted(found) == sorted((c.kernel_size, c.channels, c.features) for c in expected)
    work = sum(s.multiply_adds * n for s, n in shapes.items())
    assert work == sum(c.multiply_adds for c in expected)


def test_a_shape_says_what_it_is():
    shapes = conv_shapes(config("dtype=bfloat16", name="airbench94"), IMAGE)
    assert "bfloat16 2x2/1+0 32x32 3>24" in {str(shape) for shape in shapes}


# Seconds an image, seconds of compilation.
TIMINGS = {
    STEM: {"native": Timing(4e-4, 0.1), "onednn": Timing(2e-4, 0.3)},
    WIDE: {"native": Timing(24e-4, 0.1), "onednn": Timing(11e-4, 0.3), "winograd": Timing(8e-4, 3)},
}


@pytest.mark.parametrize(
    ("images", "stem", "wide"),
    [(1, "native", "native"), (2_000, "onednn", "onednn"), (50_000, "onednn", "winograd")],
)
def test_the_fastest_counts_its_compilation(images, stem, wide):
    choice = fastest(TIMINGS, TIMINGS, images)
    evaluated = "onednn" if wide == "winograd" else wide
    assert choice == ((str(STEM), stem, stem), (str(WIDE), wide, evaluated))
    assert words(choice) == (stem if wide == stem else f"{stem} and {wide}")
    near = {WIDE: TIMINGS[WIDE] | {"winograd": Timing(10e-4, 3)}}  # a tenth faster alone
    assert words(fastest(near, near, 10**9)) == "onednn"
    assert parse_choice(json.loads(json.dumps(choice))) == choice


@pytest.mark.parametrize(
    "record",
    ["fast", 3, [["a", "onednn"]], [["a", "onednn", "slow"]], [[1, "native", "native"]], [4]],
)
def test_no_choice(record):
    with pytest.raises(ValueError, match="conv (must|has)"):
        parse_choice(record)


@pytest.fixture
def measurements(monkeypatch, tmp_path):
    """What choose_conv asks to be measured; the answer is that oneDNN is twice as fast."""
    asked = []

    def measure(shapes, batch_size, cache_dir):
        assert (batch_size, cache_dir) == (128, tmp_path)
        asked.extend(shapes)
        return {s: {"native": Timing(2e-3, 0.1), "onednn": Timing(1e-3, 0.1)} for s in shapes}

    monkeypatch.setattr(conv_choice, "default_cache_dir", lambda: tmp_path)
    monkeypatch.setattr(conv_choice, "measure", measure)
    monkeypatch.setattr(conv_choice, "has_onednn", lambda *_: True)
    return asked


@pytest.mark.parametrize(
    ("overrides", "images", "devices", "asks", "expected"),
    [
        ((), 2_500_000, 1, True, "onednn"),
        (("dtype=bfloat16",), 2_500_000, 1, True, "onednn"),
        ((), 1_000, 1, False, "native"),  # asking would not pay
        ((), 100, 1, False, "native"),
        ((), 2_500_000, 2, False, "native"),
        (("conv=winograd",), 128, 2, False, "winograd"),
        (("conv=native",), 2_500_000, 1, False, "native"),
    ],
)
def test_auto_measures_on_one_cpu_where_it_pays(
    overrides, images, devices, asks, expected, measurements
):
    chosen = choose_conv(config(*overrides), IMAGE, images, jax.devices()[:devices])
    assert words(chosen) == expected
    assert bool(measurements) == asks


def test_a_short_run_takes_what_is_known(measurements, monkeypatch):
    kept = {s: {"onednn": Timing(1e-3, 0.1)} for s in conv_shapes(config(), IMAGE)}
    monkeypatch.setattr(conv_choice, "known", lambda *_: kept)
    assert words(choose_conv(config(), IMAGE, 1_000, jax.devices()[:1])) == "onednn"
    assert not measurements


def test_bfloat16_without_onednn_is_warned_of(measurements, monkeypatch, log_lines):
    for known, warned in ((True, False), (False, True)):
        monkeypatch.setattr(conv_choice, "has_onednn", lambda *_, known=known: known)
        choose_conv(config("dtype=bfloat16"), IMAGE, 2_500_000, jax.devices()[:1])
        assert any("float32 is probably faster" in line for line in log_lines) == warned


def test_another_machines_choice(monkeypatch):
    monkeypatch.setattr(conv_choice, "has_onednn", lambda dtype, _: dtype == "float32")
    cpu, gpu = jax.devices()[:1], [SimpleNamespace(platform="gpu", device_kind="NVIDIA H100")]
    table = (("float32 3x3/1+1 8x8 4>4", "native", "onednn"),)
    for choice in ("onednn", "onednn+winograd", table):
        assert computable(choice, "float32", cpu)
        assert not computable(choice, "bfloat16", cpu)
        assert not computable(choice, "float32", gpu)
    assert computable("winograd", "bfloat16", cpu) and computable("auto", "float32", gpu)
    with pytest.raises(UserError, match="onednn.*bfloat16 on this cpu: use auto"):
        choose_conv(config("conv=onednn", "dtype=bfloat16"), IMAGE, 100, cpu)


def test_a_choice_computes_each_convolution_as_it_says():
    images, kernel = np.ones((2, 8, 8, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    choice = ((str(Shape("float32", 3, 1, 1, 8, 8, 16, 16)), "winograd", "chunked"),)

    def text(choice, kernel, *, evaluation=False):
        convolution = convolve(choice, evaluation=evaluation)
        assert convolution is not None
        axes = ("NHWC", "HWIO", "NHWC")
        return str(
            jax.make_jaxpr(
                lambda x, k: convolution(x, k, (1, 1), [(1, 1)] * 2, dimension_numbers=axes)
            )(images, kernel)
        )

    assert "dot_general" in text(choice, kernel)
    assert "conv_general_dilated" in text(choice, kernel, evaluation=True)
    assert "custom_vjp" not in text(choice, kernel[..., :8])  # not of that shape: XLA's
