"""Files and folders that are not what an argument needs: one line, exit code 2, nothing lost."""

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.__main__ import main
from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import ROOT, tiny_config


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must end with 2 and one line, which it returns."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be damaged."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("kept")
    return path


def test_neither_a_device_nor_a_pipe_is_replaced_by_a_file(tiny_run, tmp_path, capsys):
    device, pipe = tmp_path / "device.safetensors", tmp_path / "pipe.png"
    device.symlink_to("/dev/null")
    os.mkfifo(pipe)
    export = ["export", "--workdir", str(tiny_run), "--output", str(device)]
    plot = ["plot", "--workdir", str(tiny_run), "--output", str(pipe)]
    for command in (export, plot):
        assert "is a device or a pipe" in fails(command, capsys)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert sorted(tmp_path.iterdir()) == [device, pipe]


@pytest.mark.parametrize(
    "name", ["config.json", "dataset.json", "arithmetic.json", "metrics.jsonl", ".lock"]
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, "/dev/zero"], ids=["pipe", "folder", "zero"])
def test_a_file_of_a_run_that_is_none_is_named_and_never_waited_for(run, name, make, one_device):
    (run / name).unlink()
    if callable(make):
        make(run / name)
    else:
        (run / name).symlink_to(make)
    with pytest.raises(UserError) as refused:
        train_and_evaluate(tiny_config(num_epochs=3), run, devices=one_device)
    assert str(run) in str(refused.value)


def test_a_pipe_within_a_checkpoint_is_corruption(run, one_device, log_lines):
    file = next(p for p in (run / "checkpoints" / "14").rglob("*") if p.is_file())
    file.unlink()
    os.mkfifo(file)
    assert load_trained(run).step == 7
    assert any("is corrupt" in line and "a pipe" in line for line in log_lines)


def test_metrics_that_lack_an_epoch_of_the_checkpoint_are_refused(run, one_device):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    for kept in ([], lines[:1]):
        (run / "metrics.jsonl").write_text("".join(kept))
        with pytest.raises(UserError, match=f"has {len(kept)} epochs") as refused:
            train_and_evaluate(tiny_config(num_epochs=3), run, devices=one_device)
        assert refused.value.field == str(run / "metrics.jsonl")
        assert (run / "metrics.jsonl").read_text() == "".join(kept)


def test_checkpoints_that_are_a_file_are_named(tmp_path, one_device):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="cannot be written"):
        train_and_evaluate(tiny_config(), tmp_path, devices=one_device)


def test_plot_and_export_need_an_output_that_can_be_written(tiny_run, tmp_path, file, capsys):
    (tmp_path / "folder.png").mkdir()
    plot = ["plot", "--workdir", str(tiny_run), "--output"]
    assert "cannot be written" in fails([*plot, str(tmp_path / "absent" / "a.png")], capsys)
    assert "folder.png" in fails([*plot, str(tmp_path / "folder.png")], capsys)
    assert "file.txt" in fails([*plot, str(file / "a.png")], capsys)
    assert ".png, .svg, .pdf" in fails([*plot, str(file)], capsys)
    assert "long" in fails([*plot, str(tmp_path / ("a" * 300 + ".png"))], capsys)
    export = ["export", "--workdir", str(tiny_run), "--output"]
    absent = tmp_path / "absent" / "a.safetensors"
    assert "cannot be written" in fails([*export, str(absent)], capsys)
    for other in (tmp_path, "", "/", tiny_run / "config.json"):
        assert "name a .safetensors file" in fails([*export, str(other)], capsys)
    assert file.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.txt", "folder.png"]


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "plot"])
def test_a_workdir_that_is_a_file_or_no_name_is_one_line(command, file, capsys):
    extra = {"predict": ["x.png"], "export": ["--output", "x.safetensors"]}.get(command, [])
    assert str(file) in fails([command, "--workdir", str(file), *extra], capsys)
    fails([command, "--workdir", str(file / "a"), *extra], capsys)
    fails([command, "--workdir", "a" * 5000, *extra], capsys)


def test_what_cannot_be_replaced_is_named_not_the_part_beside_it(file):
    with pytest.raises(UserError, match="Not a directory"):
        write_text(file / "a", "text")
    assert file.read_text() == "kept"


def test_training_needs_a_workdir_that_is_a_folder(file):
    for workdir in (file, file / "a", "a" * 300):
        with pytest.raises(UserError, match="cannot be written"):
            train_and_evaluate(tiny_config(), workdir)
    assert file.read_text() == "kept"


@pytest.mark.parametrize("name", ["not \udcff UTF-8", "two\nlines", "\x1b[31mred"])
def test_a_workdir_whose_name_does_not_print_is_refused_before_training(name, tmp_path):
    with pytest.raises(UserError) as caught:
        train_and_evaluate(tiny_config(), tmp_path / name)
    assert caught.value.field == "--workdir" and str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())


DAMAGES = {
    "empty": b"",
    "cut": b'{"batch_size": 3',
    "no object": b"[1, 2]",
    "a number": b"3",
    "not UTF-8": b"\xff\xfe{}",
    "a NUL": b"\0" * 100,
    "huge": b'{"a": "' + b"x" * 20_000_000 + b'"}',
    "other fields": b'{"a": 1, "design": 3}',
    "names of methods": b'{"get": 1, "to_dict": 2, "design": {"items": []}}',
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_a_damaged_file_of_a_run_is_named(run, name, damage, capsys):
    (run / name).write_bytes(DAMAGES[damage])
    error = fails(
        ["export", "--workdir", str(run), "--output", str(run / "out.safetensors")], capsys
    )
    assert name in error and len(error) < 1000
    assert (run / name).read_bytes() == DAMAGES[damage] and not (run / "out.safetensors").exists()


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_a_deeply_nested_file_of_a_run_is_named(run, name, capsys):
    (run / name).write_text("[" * 100_000)
    assert name in fails(["evaluate", "--workdir", str(run)], capsys)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": []},
        {"class_names": [1, 2]},
        {"image_shape": [32, 32]},
        {"image_shape": [32, -1, 3]},
        {"image_shape": ["32", 32, 3]},
        {"image_shape": [10**12, 32, 3]},
    ],
)
def test_data_information_of_a_run_that_cannot_be_is_named(run, changes, capsys):
    values = json.loads((run / "dataset.json").read_text())
    (run / "dataset.json").write_text(json.dumps(values | changes))
    assert main(["predict", "--workdir", str(run), "x.png"]) == 2
    error = capsys.readouterr().err  # more than a line where the tests' check of types was first
    assert "dataset.json is corrupt" in error and next(iter(changes)) in error


@pytest.mark.parametrize(
    "line",
    ["3", "[]", '"text"', "{}", "not JSON", '{"epoch": 1}', "[" * 100_000, "\0", "\ufffd"],
)
def test_a_corrupt_record_is_named_and_nothing_is_drawn(run, line, capsys):
    metrics = run / "metrics.jsonl"
    first, *rest = metrics.read_text().splitlines()
    metrics.write_text("\n".join([first, line, *rest]) + "\n")
    before = (run / "loss.png").read_bytes()
    assert "metrics.jsonl, line 2" in fails(["plot", "--workdir", str(run)], capsys)
    assert (run / "loss.png").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "2"}, {"epoch": 1}, {"epoch": 1.5}, {"step": None}, {"train_loss": "x"},
        {"train_loss": float("nan")}, {"test_accuracy": 1.5}, {"test_accuracy": None},
        {"seconds": [1]}, {"test_loss": 10**400}, {"test_loss": 1e305}, {"train_loss": True},
        {"val_loss": "x"}, {"val_accuracy": [1]},
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_is_named(run, changes):
    metrics = run / "metrics.jsonl"
    rows = read_metrics(metrics)
    rows[1] |= changes
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=f"line 2: {next(iter(changes))} is"):
        read_metrics(metrics)


def test_metrics_that_are_not_utf8_are_named(run, capsys):
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe" * 10)
    assert "metrics.jsonl" in fails(["plot", "--workdir", str(run)], capsys)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\xff\xfe", b"a,b\n1,2\n", b"x" * 300_000, b'"' * 99, b"epoch\n" * 9],
)
def test_a_damaged_reference_log_is_known_before_training(content, tmp_path):
    log = tmp_path / "log.csv"
    log.write_bytes(content)
    with pytest.raises(UserError, match=r"log\.csv") as caught:
        train_and_evaluate(tiny_config(reference_log=str(log)), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 500
    assert not (tmp_path / "run").exists()


def test_a_run_to_start_from_that_is_damaged_is_named(run, tmp_path, one_device):
    (run / "config.json").write_text("{")
    for place, words in ((run, "config.json"), (tmp_path, "is not the folder of a run")):
        config = tiny_config(init_from=str(place))
        with pytest.raises(UserError, match=words):
            train_and_evaluate(config, tmp_path / "new", devices=one_device)


def test_predict_answers_the_good_files_among_bad_ones(tiny_run, tmp_path, capsys):
    good = tmp_path / "good.png"
    Image.fromarray(np.zeros((40, 30, 4), np.uint8)).save(good)
    Image.new("1", (8193, 8193)).save(tmp_path / "bomb.png")
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.jpg")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "empty.gif").touch()
    (tmp_path / "text.jpg").write_text("no image")
    bad = ["bomb.png", "cut.png", "empty.gif", "text.jpg", "absent.png", "a" * 300]
    paths = [str(tmp_path / name) for name in ["cmyk.jpg", *bad, "good.png"]]
    assert main(["predict", "--workdir", str(tiny_run), "--json", *paths]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["file"] for answer in answers] == paths
    assert [path for path, a in zip(paths, answers, strict=True) if "error" in a] == paths[1:-1]
    assert all(len(a["error"].splitlines()) == 1 for a in answers if "error" in a)


def test_summary_refuses_sizes_beyond_reason(capsys):
    summary = ["summary", "--config", str(ROOT / "configs/revised.py")]
    assert "--classes is 10" in fails([*summary, "--classes", str(10**12)], capsys)
    assert "--image-size is" in fails([*summary, "--image-size", str(10**9)], capsys)
