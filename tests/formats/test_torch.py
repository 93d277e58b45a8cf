"""PyTorch's files both ways, against PyTorch, torchvision and timm themselves."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.__main__ import main
from flax_resnet.config.build import abstract_checkpoint, build_model
from flax_resnet.config.load import load_config
from flax_resnet.engine.steps import make_normalize
from flax_resnet.formats.torch_file import open_state
from flax_resnet.formats.torch_names import PROGRAMS, from_torch, pooled_size, to_torch
from flax_resnet.inference.model import load
from flax_resnet.process.errors import UserError
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import tiny_config

torch = pytest.importorskip("torch")
from tests.formats import torch_programs as programs  # noqa: E402

IMAGENET_3X3 = ["--config.design.bottleneck_stride=3x3"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        models = programs.import_beside_another_build("torchvision.models")
        return getattr(models, name)()

    return make


def timm(name: str) -> Callable[[], Any]:
    def make() -> Any:
        programs.import_beside_another_build("torchvision")
        return pytest.importorskip("timm").create_model(name)

    return make


# program, how to make its network, config, overrides, classes, image side
CASES = [
    ("paper", lambda: programs.CifarResNet((1, 1, 1, 1)), "revised", [], 10, 32),
    ("kuangliu", lambda: programs.CifarResNet((2, 2, 2, 2)), "resnet18", [], 10, 32),
    ("torchvision", torchvision("resnet18"), "imagenet_resnet18", [], 1000, 64),
    ("torchvision", torchvision("resnet34"), "imagenet_resnet34", [], 1000, 64),
    ("torchvision", torchvision("resnet50"), "imagenet_resnet50", IMAGENET_3X3, 1000, 64),
    ("torchvision", torchvision("resnet101"), "imagenet_resnet101", IMAGENET_3X3, 1000, 64),
    ("torchvision", torchvision("resnet152"), "imagenet_resnet152", IMAGENET_3X3, 1000, 64),
    ("timm", timm("resnet18"), "imagenet_resnet18", [], 1000, 64),
]


def variables_from(path: Path, config: Any, classes: int, shape: Any) -> Any:
    expected, _ = abstract_checkpoint(config, classes, shape)
    pooled = pooled_size(build_model(config, classes), shape)
    with open_state(path) as state:
        return from_torch(state, expected.variables, pooled, path), pooled


@pytest.mark.parametrize(
    ("program", "make", "name", "overrides", "classes", "side"),
    CASES,
    ids=[f"{case[0]}'s {case[2]}" for case in CASES],
)
def test_there_and_back_is_exact(program, make, name, overrides, classes, side, tmp_path):
    try:
        network = programs.randomize(make())
    except ImportError as error:
        pytest.skip(str(error))
    before = network.state_dict()
    path = tmp_path / "weights.pth"
    torch.save(before, path)
    config = load_config(name, overrides)
    variables, pooled = variables_from(path, config, classes, (side, side, 3))
    after = to_torch(variables, PROGRAMS[program], pooled, steps=17)
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key].dtype == value.numpy().dtype, key
        np.testing.assert_array_equal(after[key], value.numpy(), err_msg=key)
    if name.endswith(("101", "152", "34")):
        return  # the same blocks as in the others, and minutes of compilation
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    # In float64: random statistics let the logits grow with depth, to 100, and their rounding too.
    with jax.enable_x64(True):
        model = build_model(config, classes).clone(dtype=jnp.float64, param_dtype=jnp.float64)
        exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        normalize = make_normalize(config.mean, config.std, jnp.float64)
        ours = np.asarray(model.apply(exact, normalize(jnp.asarray(images))))
    theirs = programs.logits(network.double(), images, config.mean, config.std)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def tiny_twin() -> Any:
    """PyTorch's network of tiny_config, in the paper's names."""
    return programs.randomize(programs.CifarResNet((1, 1), (4, 8), pool=16))


@pytest.fixture(scope="module")
def imported(tiny_twin, tmp_path_factory) -> Path:
    """A run's folder of its weights."""
    folder = tmp_path_factory.mktemp("imported")
    torch.save({"net": {f"module.{k}": v for k, v in tiny_twin.state_dict().items()}, "acc": 9.5,
                "epoch": 3}, folder / "ckpt.pth")  # fmt: skip
    assert main(import_command(folder / "ckpt.pth", folder / "run")) == 0
    return folder / "run"


def import_command(file: Path, workdir: Path, *more: str) -> list[str]:
    overrides = [
        "--config.design.stage_sizes=(1,1)", "--config.design.stage_channels=(4,8)",
        "--config.design.kernel_sizes=(3,3)", "--config.design.shortcut_kernels=(1,1)",
        "--config.design.pool_size=16", "--config.test_images=90", "--config.eval_batch_size=40",
    ]  # fmt: skip
    return ["import", str(file), "--config", "quickstart", "--workdir", str(workdir), *overrides,
            *more]  # fmt: skip


def test_an_imported_run_evaluates_predicts_and_exports(imported, tiny_twin, tmp_path, capsys):
    model = load(imported)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    theirs = programs.logits(tiny_twin, images, model.config.mean, model.config.std)
    np.testing.assert_allclose(model.logits(images), theirs, atol=1e-4)
    assert model.step == 17 and model.class_names == tuple("0123456789")
    assert main(["evaluate", "--workdir", str(imported), "--json"]) == 0
    assert '"images": 90' in capsys.readouterr().out
    for end in ("pt", "pth", "safetensors"):
        output = tmp_path / f"weights.{end}"
        command = ["export", "--workdir", str(imported), "--format", "torch"]
        assert main([*command, "--output", str(output)]) == 0
        if end == "safetensors":
            state = pytest.importorskip("safetensors.torch").load_file(output)
        else:
            state = torch.load(output, weights_only=True)
        fresh = programs.CifarResNet((1, 1), (4, 8), pool=16)
        fresh.load_state_dict(state)
        for key, value in tiny_twin.state_dict().items():
            assert torch.equal(fresh.state_dict()[key], value), key


def test_training_goes_on_from_imported_weights(imported, tmp_path, one_device, capsys):
    config = tiny_config(init_from=imported, num_epochs=1)
    config.design.pool_size = 16
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    start, end = load(imported), load(tmp_path / "run")
    assert end.step == 7
    moved = np.abs(
        end.variables["params"]["stem_conv"]["kernel"]
        - start.variables["params"]["stem_conv"]["kernel"]
    ).max()
    assert 0 < moved < 7 * 2 * config.learning_rate  # Adam moves a weight by the rate, about
    with pytest.raises(UserError, match="init_from"):
        train_and_evaluate(start.config, imported, devices=one_device)


def test_imported_weights_are_not_overwritten(imported, capsys):
    assert main(import_command(imported.parent / "ckpt.pth", imported)) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_classes_may_come_from_a_file(imported, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    command = import_command(imported.parent / "ckpt.pth", tmp_path / "run")
    more = ["--config.dataset=nowhere/at_all", "--class-names", str(names)]
    assert main([*command, *more]) == 2
    assert "--image-size is needed" in capsys.readouterr().err
    assert main([*command, *more, "--image-size", "32"]) == 0
    assert load(tmp_path / "run").class_names[9] == "nine"
    names.write_text("cat\ndog\n")
    command = import_command(imported.parent / "ckpt.pth", tmp_path / "b")
    assert main([*command, *more, "--image-size", "32"]) == 2
    assert "has 10 classes" in capsys.readouterr().err


def test_a_head_after_a_partial_pool_is_permuted(tmp_path):
    network: Any = programs.randomize(programs.CifarResNet((1, 1), (4, 8), pool=4, map_pixels=16))
    torch.save(network.state_dict(), tmp_path / "a.pt")
    config = tiny_config()
    config.design.pool_size = 4
    variables, pooled = variables_from(tmp_path / "a.pt", config, 10, (32, 32, 3))
    assert pooled == (4, 4)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    ours = build_model(config, 10).apply(
        variables, make_normalize(config.mean, config.std)(jnp.asarray(images))
    )
    theirs = programs.logits(network, images, config.mean, config.std)
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-4)
    back = to_torch(variables, PROGRAMS["paper"], pooled)
    np.testing.assert_array_equal(back["linear.weight"], network.linear.weight.detach().numpy())


def test_what_does_not_fit_is_listed(tiny_twin, tmp_path):
    state = dict(tiny_twin.state_dict())
    del state["layer1.0.bn1.bias"]
    state["layer1.0.conv1.weight"] = torch.zeros(4, 4, 5, 5)
    state["attention.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pt")
    config = tiny_config()
    config.design.pool_size = 16
    with pytest.raises(UserError) as error:
        variables_from(tmp_path / "a.pt", config, 10, (32, 32, 3))
    assert error.value.code == "conflict"
    for part in ("lacks layer1.0.bn1.bias", "also has attention.weight",
                 "layer1.0.conv1.weight is [4, 4, 5, 5], not [4, 4, 3, 3]"):  # fmt: skip
        assert part in str(error.value)
    state = dict(tiny_twin.state_dict())
    state["bn1.weight"] = torch.full((4,), float("nan"))
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(UserError) as error:
        variables_from(tmp_path / "b.pt", config, 10, (32, 32, 3))
    assert error.value.code == "not_finite" and "bn1.weight" in str(error.value)


def test_a_network_that_those_programs_compute_otherwise_is_refused(tiny_run, tmp_path, capsys):
    command = ["import", "x.pt", "--workdir", str(tmp_path / "run"), "--config.dataset=digits"]
    assert main([*command, "--config", "imagenet_resnet50", "--config.image_size=64"]) == 2
    assert "bottleneck_stride=3x3" in capsys.readouterr().err
    assert main([*command, "--config", "resnet20"]) == 2
    assert "design.shortcut" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_read(dtype, tmp_path):
    value = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3)
    torch.save({"a": value.T, "b": torch.nn.Parameter(value[:, 1:])}, tmp_path / "a.pt")
    with open_state(tmp_path / "a.pt") as state:
        np.testing.assert_array_equal(state["a"].read().astype(float), [[0, 3], [1, 4], [2, 5]])
        np.testing.assert_array_equal(state["b"].read().astype(float), [[1, 2], [4, 5]])


def test_what_is_no_state_dict_is_refused(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.save(module, tmp_path / "module.pt")
    torch.save({"a": 1}, tmp_path / "none.pt")
    torch.save(module.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.jit.script(module).save(tmp_path / "script.pt")
    found = {"module": "torch.nn.modules.linear.Linear", "none": "no tensors", "old": "before 1.6",
             "script": "TorchScript"}  # fmt: skip
    for name, text in found.items():
        with pytest.raises(UserError, match=text) as error, open_state(tmp_path / f"{name}.pt"):
            pass
        assert error.value.code == "unreadable" and len(str(error.value).splitlines()) == 1
