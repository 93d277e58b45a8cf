import dataclasses
import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from flax_resnet.config import conv_choice
from flax_resnet.config.build import build_model
from flax_resnet.data.load import load_dataset
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.steps import make_normalize
from flax_resnet.inference import model as module
from flax_resnet.inference.model import Model, load
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import read_metrics
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


def reference_logits(model: Model, images: np.ndarray) -> np.ndarray:
    """The network applied to all images at once."""
    normalized = make_normalize(model.config.mean, model.config.std)(jnp.asarray(images))
    network = build_model(model.config, len(model.class_names))
    return np.asarray(network.apply(model.variables, normalized))


@pytest.mark.parametrize("num_images", [0, 1, 3, 40, 41, 90])
def test_logits_of_any_number_of_images_are_the_networks(model, num_images):
    images = load_dataset("digits").test_images[:num_images]
    logits = model.logits(images)
    assert logits.shape == (num_images, 10) and logits.dtype == np.float32
    if num_images:
        np.testing.assert_allclose(logits, reference_logits(model, images), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict(images), logits.argmax(-1))
    np.testing.assert_allclose(model.probabilities(images).sum(-1), 1, rtol=1e-5)


def test_a_batch_shape_is_compiled_once(tiny_run):
    model, images = load(tiny_run), load_dataset("digits").test_images
    for num_images in (41, 90, 81, 3, 4):
        model.logits(images[:num_images])
    assert sorted(size for size, *_ in model._compiled) == ["4", "40"]


def test_another_machines_convolutions_are_replaced(model, one_device, monkeypatch):
    monkeypatch.setattr(conv_choice, "has_onednn", lambda *_: False)
    images = load_dataset("digits").test_images[:5]
    config = ConfigDict({**model.config, "conv": "onednn"})
    for parallel in (DataParallel(), DataParallel(devices=one_device)):
        moved = dataclasses.replace(model, config=config, conv="onednn")
        moved.__dict__["_parallel"] = parallel
        np.testing.assert_allclose(moved.logits(images), model.logits(images), rtol=1e-4, atol=1e-5)


def test_evaluate_gives_the_last_epochs_metrics(model, tiny_run):
    dataset = load_dataset("digits").first(224, 90)
    result = model.evaluate(dataset.test_images, dataset.test_labels)
    last = read_metrics(tiny_run / "metrics.jsonl")[-1]
    assert result.images == 90 and model.step == last["step"]
    assert result.accuracy == last["test_accuracy"]
    assert result.loss == pytest.approx(last["test_loss"], rel=1e-5)  # on 8 devices, not one
    nothing = model.evaluate(dataset.test_images[:0], dataset.test_labels[:0])
    assert nothing.images == 0 and np.isnan(nothing.loss) and np.isnan(nothing.accuracy)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((2, 32, 32, 1), np.uint8),
    ],
)
def test_images_that_do_not_fit_are_refused(model, images):
    for method in (model.logits, model.predict, model.probabilities):
        with pytest.raises(UserError) as error:
            method(images)
        assert error.value.field == "images" and "32, 32, 3" in str(error.value)


@pytest.mark.parametrize("labels", [[0], [0, 10], [-1, 0], [0.5, 1.0], [[0], [1]]])
def test_labels_that_do_not_fit_are_refused(model, labels):
    with pytest.raises(UserError) as error:
        model.evaluate(np.zeros((2, 32, 32, 3), np.uint8), np.array(labels))
    assert error.value.field == "labels"


def test_images_need_not_be_square(wide_run):
    model = load(wide_run)
    images = np.zeros((3, 12, 20, 3), np.uint8)
    assert model.image_shape == (12, 20, 3) and model.logits(images).shape == (3, 2)
    with pytest.raises(UserError):
        model.logits(np.zeros((3, 20, 12, 3), np.uint8))


def test_a_run_without_a_checkpoint_or_a_best_one_is_refused(tiny_run, tmp_path):
    with pytest.raises(UserError) as error:
        load(tiny_run, "best")
    assert error.value.code == "missing" and error.value.field == "--checkpoint"
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError) as error:
        load(tmp_path / "run")
    assert error.value.code == "missing" and "checkpoints" in str(error.value.field)


def test_examples(model, tiny_run):
    names = {"model": model, "workdir": tiny_run, "np": np, "load": load}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted >= 6 and result.failed == 0


def test_importing_the_package_is_fast_and_needs_no_jax():
    code = (
        "import sys, time; start = time.perf_counter(); import flax_resnet\n"
        "seconds = time.perf_counter() - start\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert {'load', 'train', 'Model', '__version__'} <= set(dir(flax_resnet))\n"
        "assert not hasattr(flax_resnet, 'nothing')\n"
        "print(seconds, flax_resnet.load.__module__, flax_resnet.train.__module__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, *modules = result.stdout.split()
    assert float(seconds) < 0.1
    assert modules == ["flax_resnet.inference.model", "flax_resnet.training.loop"]
