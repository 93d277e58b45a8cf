from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.config.build import build_model
from flax_resnet.data.load import load_dataset
from flax_resnet.engine.steps import make_normalize
from flax_resnet.inference.model import Model, load
from flax_resnet.inference.saliency import grad_cam, overlay


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Model:
    return load(tiny_run)


def by_hand(model: Model, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """From the last block's output and the head's weights: the head is linear in that map."""
    normalized = make_normalize(model.config.mean, model.config.std)(jnp.asarray(images))
    network = build_model(model.config, len(model.class_names))
    _, state = network.apply(model.variables, normalized, capture_intermediates=True)
    last = np.asarray(state["intermediates"]["stage2_block1"]["__call__"][0])
    _, height, width, channels = last.shape
    side = model.config.design.pool_size or 4
    kernel = np.asarray(model.variables["params"]["head"]["kernel"])
    kernel = kernel.reshape(height // side, width // side, channels, -1)
    heat = []
    for image, c in zip(last, classes, strict=True):
        # Each pixel of the map counts 1/side^2 of its window, each window with its own weights.
        weights = kernel[..., c].mean((0, 1)) / side**2
        heat.append(np.maximum((image * weights).sum(-1), 0))
    heat = np.asarray(jax.image.resize(np.stack(heat), images.shape[:3], "bilinear"))
    return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-30)


def test_heat_is_that_of_the_paper(model):
    images = load_dataset("digits").test_images[:6]
    classes = model.predict(images)
    heat = grad_cam(model, images, classes)
    np.testing.assert_allclose(heat, by_hand(model, images, classes), atol=1e-4)
    assert heat.shape == (6, 32, 32) and heat.min() >= 0 and heat.max() == pytest.approx(1)
    other = grad_cam(model, images, (classes + 1) % 10)
    assert np.abs(heat - other).max() > 0.05


def test_images_need_not_be_square(wide_run):
    model = load(wide_run)
    images = np.load(wide_run.parent / "wide.npz")["x_test"][:4]
    heat = grad_cam(model, images, model.predict(images))
    assert heat.shape == (4, 12, 20) and np.isfinite(heat).all()


def test_overlay_shows_image_and_heat():
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    heat = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    shown = overlay(images, heat)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[0, :, 0], [[50, 50, 52]] * 2)  # cold: nearly black
    assert shown[0, 0, 1].min() > 100
    np.testing.assert_array_equal(overlay(images, heat, strength=0.0), images)
