"""Programs that run without this package give what the network gives here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax import export
from PIL import Image

from flax_resnet.__main__ import main
from flax_resnet.formats.onnx_graph import to_onnx
from flax_resnet.inference.model import Model, load
from tests.conftest import tiny_config


def images_for(model: Model, number: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, *model.image_shape), np.uint8)


@pytest.fixture(scope="module")
def exported(wide_run, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("program") / "wide.stablehlo"
    command = ["export", "--workdir", str(wide_run), "--format", "stablehlo"]
    assert main([*command, "--output", str(output)]) == 0
    return output


def test_stablehlo_gives_the_same_probabilities_for_any_number_of_images(exported, wide_run):
    network, model = export.deserialize(bytearray(exported.read_bytes())), load(wide_run)
    assert set(network.platforms) == {"cpu", "cuda", "tpu"}
    for number in (1, 3, 7):
        images = images_for(model, number)
        found = np.asarray(network.call(images))
        assert found.shape == (number, 2) and found.dtype == np.float32
        np.testing.assert_allclose(found, model.probabilities(images), atol=1e-6)


def test_the_runner_needs_no_more_than_what_is_beside_it(exported, wide_run, tmp_path):
    model = load(wide_run)
    image = images_for(model, 1)
    Image.fromarray(image[0]).save(tmp_path / "a.png")
    (row,) = model.probabilities(image)
    runner = Path(f"{exported}.py")
    command = [sys.executable, "-I", str(runner), str(tmp_path / "a.png")]
    blocked = "import sys; sys.modules['flax_resnet'] = sys.modules['flax'] = None\n"
    runner.write_text(blocked + runner.read_text())
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    name = model.class_names[row.argmax()]
    assert result.stdout == f"{tmp_path / 'a.png'}: {name}, {row.max():.2%}\n"


DESIGNS: list[dict[str, Any]] = [
    {},
    {"design.pool_size": 4},
    {"design.shortcut": "pad", "design.kernel_sizes": (5, 3), "design.pool_size": 0},
    {"design.shortcut": "none", "design.stage_sizes": (2, 1)},
    {"design.block": "bottleneck", "design.stage_sizes": (1, 2), "design.shortcut_kernels": (3, 1)},
    {"design.block": "bottleneck", "design.bottleneck_stride": "3x3", "design.stem": "imagenet",
     "design.pool_size": 0},
]  # fmt: skip


@pytest.mark.parametrize("changes", DESIGNS, ids=lambda c: " ".join(map(str, c.values())))
def test_onnx_gives_the_same_probabilities(changes, tiny_run):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = random_model(changes, load(tiny_run))
    content = to_onnx(model)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for number in (1, 5):
        images = images_for(model, number)
        (found,) = session.run(None, {"images": images})
        expected = model.probabilities(images)
        assert np.ptp(expected) > 0.01
        np.testing.assert_allclose(found, expected, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(model.class_names)
    assert session.get_modelmeta().producer_name == "flax_resnet"


def random_model(changes: dict[str, Any], like: Model) -> Model:
    """A network of tiny_config with `changes`, away from BatchNorm's initial values."""
    import jax

    from flax_resnet.config.build import abstract_checkpoint

    config = tiny_config(**{"design.pool_size": 16} | changes)
    shapes = dict(abstract_checkpoint(config, 10, (32, 32, 3))[0].variables)
    rng = np.random.default_rng(1)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 2.0)}.get(path[-1].key, (-0.5, 0.5))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return Model(config, like.data, jax.tree.map_with_path(draw, shapes), 0)


@pytest.mark.parametrize(
    ("format_", "name"),
    [("stablehlo", "a.onnx"), ("onnx", "a.py"), ("torch", "a.bin"), ("safetensors", "a.pt")],
)
def test_the_files_name_must_fit_the_format(format_, name, tiny_run, tmp_path, capsys):
    command = ["export", "--workdir", str(tiny_run), "--format", format_]
    assert main([*command, "--output", str(tmp_path / name)]) == 2
    assert "--output" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_onnx_asks_for_its_package(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    command = ["export", "--workdir", str(tiny_run), "--format", "onnx"]
    assert main([*command, "--output", str(tmp_path / "a.onnx")]) == 2
    assert "pip install" in capsys.readouterr().err
