"""Opening a run: when a folder becomes a run's, and what an older version left."""

import json
import shutil
import zipfile
from pathlib import Path

import jax
import pytest

from flax_resnet.config import conv_choice
from flax_resnet.config.build import build_eval_step
from flax_resnet.config.fields import FORMAT
from flax_resnet.data.load import load_dataset
from flax_resnet.engine.evaluate import Evaluator
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.inference.model import load_trained
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training import session
from flax_resnet.training.hooks import Hook
from flax_resnet.training.loop import train_and_evaluate
from flax_resnet.training.save_policy import SavePolicy
from tests.conftest import ROOT, tiny_config


def test_a_failed_first_start_leaves_the_workdir_to_the_next(tmp_path, one_device):
    workdir = tmp_path / "run"
    with pytest.raises(UserError):
        train_and_evaluate(tiny_config(dataset="missing.npz"), workdir, devices=one_device)
    assert not (workdir / "config.json").exists()
    config = tiny_config(num_epochs=1, train_images=32)
    assert train_and_evaluate(config, workdir, devices=one_device).signum is None


def test_a_folder_without_a_checkpoint_refuses_no_config(tmp_path, one_device):
    workdir = tmp_path / "run"

    class Fail(Hook):
        def after_dispatch(self, session: object, progress: object) -> None:
            raise RuntimeError

    config = tiny_config(num_epochs=1, train_images=32)
    with pytest.raises(RuntimeError):
        train_and_evaluate(config, workdir, devices=one_device, hooks=[Fail()])
    assert RunFolder(workdir).config().seed == 0
    config.seed = 1
    assert train_and_evaluate(config, workdir, devices=one_device).signum is None
    assert RunFolder(workdir).config().seed == 1


def test_the_metrics_of_a_run_whose_checkpoints_are_gone_are_kept(
    tmp_path, tiny_run, one_device, log_lines
):
    workdir = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = tiny_config(num_epochs=1, train_images=32)
    for number in (1, 2):
        before = (workdir / "metrics.jsonl").read_bytes()
        shutil.rmtree(workdir / "checkpoints")
        assert train_and_evaluate(config, workdir, devices=one_device).signum is None
        assert (workdir / f"metrics.{number}.jsonl").read_bytes() == before
        assert any(f"kept in metrics.{number}.jsonl" in line for line in log_lines)
    assert [row["step"] for row in read_metrics(workdir / "metrics.jsonl")] == [1]


def test_data_information_missing_beside_checkpoints_is_refused(tmp_path, tiny_run, one_device):
    workdir = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (workdir / "dataset.json").unlink()
    with pytest.raises(UserError) as refused:
        train_and_evaluate(tiny_config(num_epochs=3), workdir, devices=one_device)
    assert refused.value.code == "missing"


def test_the_choice_of_convolutions_is_recorded_and_kept(tiny_run, tmp_path, one_device, log_lines):
    assert RunFolder(tiny_run).arithmetic().conv == "native"
    workdir = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    record = json.loads((workdir / "arithmetic.json").read_text())
    (workdir / "arithmetic.json").write_text(json.dumps(record | {"conv": "winograd"}))
    train_and_evaluate(tiny_config(num_epochs=3), workdir, devices=one_device)
    assert any("winograd convolutions" in line for line in log_lines)
    table = [["float32 1x1/1+0 8x8 4>4", "product", "native"]]
    (workdir / "arithmetic.json").write_text(json.dumps(record | {"conv": table}))
    train_and_evaluate(tiny_config(num_epochs=4), workdir, devices=one_device)
    assert any("product convolutions" in line for line in log_lines)
    assert not any("not bit-for-bit" in line for line in log_lines)
    assert json.loads((workdir / "arithmetic.json").read_text())["conv"] == table
    (workdir / "arithmetic.json").write_text(json.dumps(record | {"devices": 2}))
    train_and_evaluate(tiny_config(num_epochs=5), workdir, devices=one_device)
    assert any("not bit-for-bit" in line for line in log_lines)


@pytest.mark.parametrize(("images", "noted"), [(31 + 32, True), (30 + 32, False), (1 + 32, False)])
def test_a_last_batch_that_devices_cannot_share_is_noted(images, noted, log_lines):
    config = tiny_config(train_images=images, batch_size=32)
    dataset = load_dataset("digits").first(images, 32)
    session._load(config, dataset, DataParallel(devices=jax.devices()[:2]))
    assert any(f"share the last {images - 32} images" in line for line in log_lines) == noted


def test_convolutions_that_this_processor_lacks_are_chosen_again(
    tiny_run, tmp_path, one_device, log_lines, monkeypatch
):
    monkeypatch.setattr(conv_choice, "has_onednn", lambda *_: False)
    workdir = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    record = json.loads((workdir / "arithmetic.json").read_text())
    (workdir / "arithmetic.json").write_text(json.dumps(record | {"conv": "onednn"}))
    train_and_evaluate(tiny_config(num_epochs=3), workdir, devices=one_device)
    assert any("native convolutions now" in line and "onednn" in line for line in log_lines)
    assert RunFolder(workdir).arithmetic().conv == "native"


@pytest.fixture
def format1(tmp_path: Path) -> Path:
    """A finished run of two epochs made by flax_resnet 0.1 (Python 3.11, JAX 0.10.2)."""
    with zipfile.ZipFile(ROOT / "tests/runs/format1.zip") as file:
        file.extractall(tmp_path / "format1")
    return tmp_path / "format1"


def test_a_run_of_the_first_version_opens_and_answers_as_it_did(format1, one_device, log_lines):
    assert "format" not in json.loads((format1 / "config.json").read_text())
    trained = load_trained(format1)
    config = trained.config
    assert trained.step == 14 and trained.data.class_names == tuple("0123456789")
    images = load_dataset("digits").first(config.train_images, config.test_images)
    parallel = DataParallel(devices=one_device)
    evaluate = Evaluator(
        parallel.compile_eval(build_eval_step(config, 10)),
        parallel,
        images.test_images,
        images.test_labels,
        config.eval_batch_size,
    )
    found, expected = evaluate(trained.variables), read_metrics(format1 / "metrics.jsonl")[-1]
    assert found is not None and found.accuracy == expected["test_accuracy"]
    assert found.loss == pytest.approx(expected["test_loss"], rel=1e-6)
    train_and_evaluate(config, format1, devices=one_device)
    assert "is finished" in log_lines[-1]


def test_an_unfinished_run_of_the_first_version_is_refused_but_gives_its_weights(
    format1, tmp_path, one_device
):
    shutil.rmtree(format1 / "checkpoints/14")
    config = RunFolder(format1).config()
    with pytest.raises(UserError, match="0.1") as refused:
        train_and_evaluate(config, format1, devices=one_device)
    assert (refused.value.code, refused.value.field) == ("conflict", str(format1))
    assert load_trained(format1).step == 7
    config.init_from = str(format1)
    train_and_evaluate(config, tmp_path / "new", devices=one_device, until_epoch=1)


def test_a_run_of_the_second_format_goes_on_as_it_would_have(tmp_path, one_device):
    """Made by 0.2 before it had the recipe fields of format 3, and stopped after epoch 1 of 2."""
    with zipfile.ZipFile(ROOT / "tests/runs/format2.zip") as file:
        file.extractall(tmp_path / "run")
    config = RunFolder(tmp_path / "run").config()
    assert config.label_smoothing == config.ema_decay == 0 and config.test_views == "none"
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    last = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    # What the program that made it ended with; equal bit for bit if compiled as users do.
    assert last["train_loss"] == pytest.approx(2.248854500906808, rel=1e-5)
    assert last["test_loss"] == pytest.approx(2.251808675130208, rel=1e-5)
    assert json.loads((tmp_path / "run/config.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize(
    ("step", "taken", "seconds", "due"),
    [(10, 1, 0.0, True), (11, 1, 0.0, False), (12, 3, 0.0, True), (9, 9, 59.0, False),
     (9, 1, 60.0, True)],
)  # fmt: skip
def test_saving_is_due_by_steps_or_by_time(step, taken, seconds, due):
    assert SavePolicy(every_steps=10, every_minutes=1.0).is_due(step, taken, seconds) == due


def test_without_a_number_of_steps_time_alone_decides():
    assert not SavePolicy(None, 1.0).is_due(10, 10, 1.0)


@pytest.mark.parametrize(("size", "nearest"), [(30, 32), (3, 8), (20, 16)])
def test_a_batch_that_the_devices_cannot_share_is_refused_with_the_nearest(size, nearest, tmp_path):
    with pytest.raises(UserError, match=f"is {nearest};") as refused:  # of the 8 virtual devices
        train_and_evaluate(tiny_config(batch_size=size), tmp_path / "run")
    assert refused.value.field == "config.batch_size"


def test_groups_that_do_not_divide_the_devices_are_refused(tmp_path):
    config = tiny_config(batch_norm="group", batch_norm_devices=3)
    with pytest.raises(UserError) as refused:
        train_and_evaluate(config, tmp_path / "run")
    assert refused.value.field == "config.batch_norm_devices"
