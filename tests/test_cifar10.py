"""On the real images, prepared by tfds (see README); skipped where there are none."""

import os
from pathlib import Path

import numpy as np
import pytest

from flax_resnet.config.load import load_config
from flax_resnet.data.batches import TrainBatches
from flax_resnet.data.load import load_dataset
from flax_resnet.data.transforms import build_transforms
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import ROOT

prepared = any(Path(os.environ.get("TFDS_DATA_DIR", "nowhere")).glob("cifar10/*/dataset_info.json"))
pytestmark = [
    pytest.mark.cifar10,
    pytest.mark.skipif(not prepared, reason="TFDS_DATA_DIR holds no prepared cifar10"),
]
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def test_the_set_is_whole_and_an_epoch_is_the_papers_391_steps():
    data = load_dataset("cifar10")
    assert data.train_images.shape == (50_000, 32, 32, 3)
    assert data.test_images.shape == (10_000, 32, 32, 3)
    assert list(data.class_names) == CLASSES
    for labels, each in ((data.train_labels, 5_000), (data.test_labels, 1_000)):
        np.testing.assert_array_equal(np.bincount(labels), np.full(10, each))
    batches = TrainBatches(
        data.train_images, data.train_labels, batch_size=128, seed=0, drop_last=False,
        transforms=build_transforms(crop_padding=4, flip=True),
    )  # fmt: skip
    assert batches.steps_per_epoch == 391 and batches.sizes == [128, 80]


def test_the_papers_mean_is_that_of_the_images():
    config = load_config(ROOT / "configs/revised.py")
    mean = np.asarray(load_dataset("cifar10").train_images).mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, config.mean, atol=0.002)


def test_a_small_network_learns_in_three_epochs(tmp_path, one_device):
    config = load_config(
        ROOT / "configs/resnet20.py",
        ["--config.train_images=3200", "--config.test_images=500", "--config.num_epochs=3",
         "--config.optimizer=adam", "--config.weight_decay=0", "--config.learning_rate=0.01",
         "--config.design.stage_sizes=(1,1)", "--config.design.stage_channels=(8,16)",
         "--config.design.kernel_sizes=(3,3)", "--config.design.shortcut_kernels=(1,1)",
         "--config.schedule=constant", "--config.batch_size=32", "--config.crop_padding=0"],
    )  # fmt: skip
    train_and_evaluate(config, tmp_path, devices=one_device)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["step"] == 300
    assert rows[-1]["train_accuracy"] > 0.3, rows  # chance is 0.1; seeds differ by 0.01
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
