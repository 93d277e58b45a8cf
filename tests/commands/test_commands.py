import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from flax_resnet.__main__ import COMMANDS, main
from flax_resnet.data.image_files import resize_and_crop
from flax_resnet.data.load import load_dataset
from flax_resnet.inference.model import Model, load
from flax_resnet.models.cpu.conv import IMPLEMENTATIONS
from flax_resnet.runs.metrics_log import read_metrics
from tests.conftest import ROOT


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """A training image of the tiny run, as a file."""
    path = tmp_path / "digit.png"
    Image.fromarray(np.asarray(load_dataset("digits").train_images)[0]).save(path)
    return path


def test_summary_prints_the_papers_parameters(capsys):
    assert main(["summary", "--config", str(ROOT / "configs/revised.py")]) == 0
    assert "4,903,242" in capsys.readouterr().out
    shortcut = "--config.design.shortcut_kernels=(3,3,3,3)"
    assert main(["summary", "--config", str(ROOT / "configs/revised.py"), shortcut]) == 0
    assert "6,279,498" in capsys.readouterr().out
    assert main(["summary", "--config", str(ROOT / "configs/imagenet_resnet152.py")]) == 0
    assert "60,192,808" in capsys.readouterr().out


def test_summary_asks_for_what_it_cannot_know(capsys):
    arguments = ["summary", "--config", str(ROOT / "configs/revised.py"), "--config.dataset=a/b"]
    assert main(arguments) == 2
    assert "--classes is needed" in capsys.readouterr().err
    assert main([*arguments, "--classes", "7", "--image-size", "64"]) == 0
    assert "7 classes" in capsys.readouterr().out
    assert main([*arguments, "--classes", "7", "--image-size", "8"]) == 2
    assert "config.design.pool_size is 4" in capsys.readouterr().err


def test_tune_times_each_convolution_and_keeps_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLAX_RESNET_CACHE", str(tmp_path))
    small = ["--config.batch_size=2", "--config.design.stage_channels=(4,4,4,4)"]
    assert main(["tune", "--config", "quickstart", "--config.dtype=bfloat16", *small]) == 0
    title, _, _, header, *rows, _, _, total = capsys.readouterr().out.splitlines()
    assert title.startswith("revised, bfloat16, on ")
    assert header.split()[:3] == ["Convolution", "Number", "native"]
    assert rows[0].startswith("3x3/1+1 32x32 3>") and rows[0].split()[-1] in IMPLEMENTATIONS
    assert "ms an image by XLA" in total
    (kept,) = (tmp_path / "convolutions").iterdir()
    assert len(json.loads(kept.read_text())) == len(rows)


def test_evaluate_gives_the_last_epochs_metrics(tiny_run, capsys):
    assert main(["evaluate", "--workdir", str(tiny_run), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    last = read_metrics(tiny_run / "metrics.jsonl")[-1]
    assert figures["images"] == 90 and figures["step"] == last["step"]
    assert figures["test_accuracy"] == last["test_accuracy"]
    assert figures["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_predict_sees_all_of_an_image_that_is_not_square(wide_run, tmp_path, capsys):
    model, path = load(wide_run), tmp_path / "a.png"
    for bright in (slice(0, 4), slice(16, 20)):  # all that a crop to a square would lose
        image = np.zeros((12, 20, 3), np.uint8)
        image[:, bright] = 255
        Image.fromarray(image).save(path)
        command = ["predict", "--workdir", str(wide_run), str(path), "--json", "--top", "2"]
        assert main(command) == 0
        answers = json.loads(capsys.readouterr().out)["predictions"]
        found = {answer["class"]: answer["probability"] for answer in answers}
        (expected,) = model.probabilities(image[None]).tolist()
        assert found == pytest.approx(dict(zip(model.class_names, expected, strict=True)))
        resized = resize_and_crop(image, 12, 12)  # what predict once did
        assert not resized.any()


def test_predict_prints_class_names_with_probabilities(tiny_run, digit, capsys):
    assert main(["predict", "--workdir", str(tiny_run), str(digit), "--json", "--top", "10"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["file"] == str(digit)
    probabilities = [p["probability"] for p in answer["predictions"]]
    assert sorted(p["class"] for p in answer["predictions"]) == list("0123456789")
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_predict_fits_files_to_the_runs_height_and_width(wide_run, tmp_path, capsys):
    images = np.load(wide_run.parent / "wide.npz")["x_test"][:2]
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    assert main(["predict", "--workdir", str(wide_run), *paths, "--json"]) == 0
    answers = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    for answer, expected in zip(answers, load(wide_run).probabilities(images), strict=True):
        assert {p["class"]: p["probability"] for p in answer} == pytest.approx(
            dict(zip(load(wide_run).class_names, expected.tolist(), strict=True)), rel=1e-5
        )


def test_predict_takes_a_dispatch_a_batch(tiny_run, digit, capsys, monkeypatch):
    batches = []
    monkeypatch.setattr(
        Model, "probabilities", lambda self, x: batches.append(len(x)) or np.ones((len(x), 10)) / 10
    )
    assert main(["predict", "--workdir", str(tiny_run), *[str(digit)] * 50, "--json"]) == 0
    assert batches == [40, 10] and len(capsys.readouterr().out.splitlines()) == 50


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5"])
def test_predict_refuses_a_top_that_is_no_positive_integer(tiny_run, digit, top, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--workdir", str(tiny_run), str(digit), "--top", top])
    assert stopped.value.code == 2 and "--top" in capsys.readouterr().err


def test_predict_answers_the_other_files_when_one_is_bad(tiny_run, digit, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    assert main(["predict", "--workdir", str(tiny_run), str(bad), str(digit)]) == 2
    captured = capsys.readouterr()
    assert str(bad) in captured.err and str(digit) in captured.out
    assert len(captured.out.splitlines()) == 6


def test_export_writes_the_weights_under_flat_names(tiny_run, tmp_path, capsys):
    output = tmp_path / "weights.safetensors"
    assert main(["export", "--workdir", str(tiny_run), "--output", str(output)]) == 0
    arrays = load_file(output)
    trained = load(tiny_run)
    np.testing.assert_array_equal(
        arrays["params/head/kernel"], trained.variables["params"]["head"]["kernel"]
    )
    np.testing.assert_array_equal(
        arrays["batch_stats/stem_norm/var"], trained.variables["batch_stats"]["stem_norm"]["var"]
    )
    with safe_open(output, "numpy") as file:
        assert json.loads(file.metadata()["class_names"]) == list("0123456789")


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "plot", "compare", "report"])
def test_a_folder_that_is_no_run_is_one_line(command, tmp_path, capsys):
    extra = {"predict": ["x.png"], "export": ["--output", "x.safetensors"]}.get(command, [])
    assert main([command, "--workdir", str(tmp_path), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path) in error and error.count("\n") == 1


def test_a_damaged_config_is_named(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "config.json").write_text("{")
    assert main(["evaluate", "--workdir", str(run)]) == 2
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [None, "train", "summary", "evaluate", "report", "predict", "export"]
)
def test_help_needs_no_jax(command):
    arguments = ["--help"] if command is None else [command, "--help"]
    code = (
        f"import sys; sys.argv = ['flax_resnet', *{arguments}]\n"
        "import runpy\n"
        "try: runpy.run_module('flax_resnet', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(name in result.stdout for name in ([command] if command else COMMANDS))


def test_train_is_a_command(tmp_path, capsys):
    config = tmp_path / "bad.py"
    config.write_text("def get_config(): pass")
    workdir = tmp_path / "run"
    assert main(["train", "--config", str(config), "--workdir", str(workdir)]) == 2
    assert str(config) in capsys.readouterr().err and not workdir.exists()


def test_help_of_every_field_may_be_read_in_part():
    shell = f"{sys.executable} train.py --help-config | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.split() in (["Network", "0"], ["Network", "141"])
