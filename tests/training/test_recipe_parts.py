"""A run with every part of a recipe that the paper's has not."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flax_resnet.__main__ import main
from flax_resnet.data.load import load_dataset
from flax_resnet.inference.model import load_trained
from flax_resnet.models.whitening import whitening_filters
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import train_and_evaluate
from tests.conftest import tiny_config

PARTS = {
    "pad_mode": "reflect",
    "flip": True,
    "flip_mode": "alternating",
    "color_jitter": (0.2, 0.2, 0.2),
    "trivial_augment": True,
    "cutout": 8,
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "schedule": "linear",
    "warmup_epochs": 0.5,
    "schedule_start": 0.2,
    "optimizer": "nesterov",
    "learning_rate": 0.05,
    "norm_bias_rate": 4.0,
    "clip_norm": 1.0,
    "clip_value": 0.5,
    "micro_batches": 2,
    "sam_rho": 0.05,
    "ema_decay": 0.9,
    "test_views": "mirror_shift",
}


# The network and optimizer of airbench, for images of 8 x 8 pixels.
NETWORK = {
    "design.stem": "whiten",
    "design.downsample": "pool",
    "design.block": "single",
    "design.shortcut": "none",
    "design.activation": "gelu",
    "design.norm_scale": False,
    "design.norm_momentum": 0.6,
    "design.head_pool": "max",
    "design.pool_size": 1,
    "design.head_bias": False,
    "design.logit_scale": 0.3,
    "weight_init": "dirac",
    "optimizer": "muon",
    "learning_rate": 0.24,
    "weight_decay": 0.01,
    "norm_bias_rate": 40.0,
    "head_rate": 4.0,
    "stem_bias_rate": 40.0,
    "stem_bias_epochs": 1,
    "schedule": "linear",
    "lookahead_steps": 3,
    "lookahead_decay": 0.8,
    "lookahead_power": 3.0,
}


def run(folder: Path, devices: list[Any], *epochs: int | None, **changes: Any) -> Path:
    """A tiny run with PARTS, trained up to each of the epochs in turn."""
    for epoch in epochs:
        train_and_evaluate(
            tiny_config(**PARTS | changes), folder, devices=devices, until_epoch=epoch
        )
    return folder


def test_all_parts_together_are_resumed_bit_for_bit_and_their_averages_are_evaluated(
    tmp_path, one_device, capsys
):
    whole = run(tmp_path / "whole", one_device, None)
    resumed = run(tmp_path / "resumed", one_device, 1, None)
    ours, theirs = (load_trained(folder).variables for folder in (whole, resumed))
    jax.tree.map(np.testing.assert_array_equal, dict(ours), dict(theirs))
    rows = read_metrics(whole / "metrics.jsonl")
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert ["test_views_accuracy" in row for row in rows] == [False, True]
    capsys.readouterr()  # what was logged, if a command before this test printed log lines
    assert main(["evaluate", "--workdir", str(whole), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for name in ("test_loss", "test_accuracy", "test_views_loss", "test_views_accuracy"):
        assert printed[name] == pytest.approx(rows[-1][name], rel=1e-5)
    assert printed["test_views_loss"] != printed["test_loss"]
    # The weights that training goes on with are others than the averages.
    plain = run(tmp_path / "plain", one_device, None, ema_decay=0.0)
    last = load_trained(plain).variables["params"]["head"]["kernel"]
    assert np.abs(last - ours["params"]["head"]["kernel"]).max() > 1e-4


def test_airbenchs_parts_are_resumed_bit_for_bit_with_filters_of_the_images(tmp_path, one_device):
    def trained(folder: Path, *epochs: int | None) -> Any:
        for epoch in epochs:
            config = tiny_config(**NETWORK)
            train_and_evaluate(config, folder, devices=one_device, until_epoch=epoch)
        return dict(load_trained(folder).variables)

    whole, resumed = trained(tmp_path / "a", None), trained(tmp_path / "b", 1, None)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    rows = read_metrics(tmp_path / "a/metrics.jsonl")
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    stem = whole["params"]["stem_whiten"]
    images = load_dataset("digits", cache_dir=None).train_images[:224]
    config = tiny_config()
    # But for the rounding of Lookahead's means of equal values.
    expected = whitening_filters(images, config.mean, config.std)
    np.testing.assert_allclose(stem["kernel"], expected, rtol=1e-6)
    # And the run's page has them.
    page = tmp_path / "page.html"
    assert main(["report", "--workdir", str(tmp_path / "a"), "--output", str(page)]) == 0
    assert "Filters of the first convolution (24 of 24)" in page.read_text()


def test_frozen_parts_stay_where_another_run_left_them(tmp_path, tiny_run, one_device):
    config = tiny_config(
        init_from=tiny_run,
        freeze=("stem", "stage1"),
        num_epochs=1,
        weight_decay=0.1,
        optimizer="sgd",
    )
    train_and_evaluate(config, tmp_path / "run", devices=one_device)
    old, new = (load_trained(folder).variables["params"] for folder in (tiny_run, tmp_path / "run"))
    for name in old:
        moved = any(
            jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), old[name], new[name]))
        )
        assert moved == (not name.startswith(("stem", "stage1"))), name


def test_a_frozen_name_that_no_parameter_has_is_refused(tmp_path, one_device):
    with pytest.raises(UserError) as refused:
        train_and_evaluate(tiny_config(freeze=("body",)), tmp_path / "run", devices=one_device)
    assert refused.value.field == "config.freeze" and "stage1_block1" in str(refused.value)


def test_a_network_over_the_budget_is_refused(tmp_path, one_device):
    with pytest.raises(UserError) as refused:
        train_and_evaluate(tiny_config(max_params=100), tmp_path / "run", devices=one_device)
    assert (refused.value.code, refused.value.field) == ("conflict", "config.max_params")
    assert not (tmp_path / "run" / "config.json").exists()
