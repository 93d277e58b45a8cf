"""Runs on images that stay on disk: as in memory, and exact after kill -9."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from flax_resnet.inference.model import load
from flax_resnet.inference.test_images import load_test_images
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import ROOT, tiny_config
from tests.dataset_files import limit_memory, write_photos
from tests.stress.trainings import difference, everything_saved


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """18 JPEGs of different sizes: 5 steps an epoch, the last a short batch."""
    return write_photos(tmp_path_factory.mktemp("photos"), 18)


def changes(photos: str | Path, **more: object) -> dict[str, Any]:
    return {
        "dataset": photos, "image_size": 24, "train_images": None, "test_images": None,
        "batch_size": 4, "num_epochs": 2,
    } | more  # fmt: skip


def test_a_streamed_run_is_the_run_in_memory(photos, tmp_path, one_device):
    for loading in ("memory", "stream"):
        config = tiny_config(**changes(photos, data_loading=loading, validation_split=5))
        train_and_evaluate(config, tmp_path / loading, devices=one_device)
    saved = [everything_saved(tmp_path / loading) for loading in ("memory", "stream")]
    assert difference(*saved) is None


KILLED = """
import os, signal, sys
import jax
from flax_resnet.training.hooks import Hook
from flax_resnet.training.loop import train_and_evaluate
from tests.training.test_streaming import imagenet_config

class Kill(Hook):
    def after_dispatch(self, session, progress):
        if progress.step == 8:
            session.checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)

photos, workdir = sys.argv[1:]
train_and_evaluate(imagenet_config(photos), workdir, devices=jax.devices()[:1], hooks=[Kill()])
"""


def imagenet_config(photos: str | Path) -> ConfigDict:
    """The parts of the recipe for ImageNet that concern its images."""
    imagenet = {"crop_padding": 0, "resized_crop": 0.08, "eval_crop": 0.875}
    changed = changes(photos, data_loading="stream", checkpoint_every_steps=1, **imagenet)
    return tiny_config(**changed)


def test_a_run_killed_in_an_epoch_resumes_exactly(photos, tmp_path, one_device, log_lines):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_and_evaluate(imagenet_config(photos), whole, devices=one_device)
    command = [sys.executable, "-c", KILLED, str(photos), str(killed)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    train_and_evaluate(imagenet_config(photos), killed, devices=one_device)
    (place,) = (line for line in log_lines if line.startswith("resuming"))
    assert "(epoch 2, 2 of 5 steps done)" in place
    assert difference(everything_saved(killed), everything_saved(whole)) is None
    trained = load(killed)
    images, labels = load_test_images(trained, killed)
    logged = read_metrics(killed / "metrics.jsonl")[-1]
    assert trained.evaluate(images, labels).loss == pytest.approx(logged["test_loss"], rel=1e-5)


def test_auto_goes_on_as_the_run_began(photos, tmp_path, one_device, monkeypatch):
    config = tiny_config(**changes(photos))
    limit_memory(monkeypatch, 22 * 24 * 24 * 3 - 1)
    train_and_evaluate(config, tmp_path / "run", devices=one_device, until_epoch=1)
    limit_memory(monkeypatch, 10**9)
    file = photos / "train" / "a" / "00.jpg"
    before = file.read_bytes()
    file.write_bytes(before + b"longer")
    with pytest.raises(UserError) as caught:
        train_and_evaluate(config, tmp_path / "run", devices=one_device)
    assert caught.value.field == "config.dataset"
    file.write_bytes(before)
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    assert json.loads((tmp_path / "run/dataset.json").read_text())["digest"].startswith("stream:")
