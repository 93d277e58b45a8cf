"""Recipes in PyTorch, which the report and the documentation compare with."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_metrics

pytest.importorskip("torch")


def test_it_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from benchmarks.torch_recipe import main

    def train(epochs: int, workdir: str) -> list[Row]:
        argv = f"torch_recipe --config quickstart --epochs {epochs} --workdir {tmp_path / workdir}"
        # PyTorch 2.13 crashes with 8 channels in channels_last.
        narrow = ["--config.design.stage_channels=(16,16,16,16)", "--config.learning_rate=0.01"]
        monkeypatch.setattr(sys, "argv", [*argv.split(), *narrow])
        main()
        return read_metrics(tmp_path / workdir / "metrics.jsonl")

    whole = train(2, "whole")
    assert [row["epoch"] for row in whole] == [1, 2]
    assert whole[1]["train_loss"] < whole[0]["train_loss"]
    assert whole[1]["train_accuracy"] > 0.5
    train(1, "resumed")
    resumed = train(2, "resumed")
    assert resumed[1]["test_loss"] == pytest.approx(whole[1]["test_loss"], rel=1e-2)


def test_in_turns_with_this_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from benchmarks.in_turns import main

    monkeypatch.delenv("XLA_FLAGS")  # one device in the processes that it starts
    argv = (
        f"--config quickstart --workdir {tmp_path}/runs --output {tmp_path} --config.num_epochs=2"
    )
    narrow = ["--config.design.stage_channels=(16,16,16,16)", "--config.train_images=500"]
    result = main([*argv.split(), *narrow])
    assert [row["program"] for row in result["rows"]] == ["flax_resnet", "pytorch"]
    for row in result["rows"]:
        epochs = read_metrics(tmp_path / "runs" / row["program"] / "metrics.jsonl")
        assert row["test_accuracy"] == [epoch["test_accuracy"] for epoch in epochs]
        assert len(row["seconds"]) == len(epochs) == 2 and min(row["seconds"]) > 0
    with pytest.raises(SystemExit):  # the folder exists
        main([*argv.split(), *narrow])


def test_airbench94_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from benchmarks.torch_recipe import main

    rng = np.random.default_rng(0)
    patterns, labels = rng.integers(0, 200, (10, 32, 32, 3)), np.arange(600) % 10
    images = (patterns[labels] + rng.integers(0, 56, (600, 32, 32, 3))).astype(np.uint8)
    arrays: Any = {"x_train": images[:400], "x_test": images[400:]}
    arrays |= {"y_train": labels[:400], "y_test": labels[400:]}
    np.savez(tmp_path / "patterns.npz", **arrays)
    argv = f"torch_recipe --config airbench94 --workdir {tmp_path} --config.num_epochs=2"
    values = [f"dataset={tmp_path}/patterns.npz", "batch_size=40", "crop_padding=0"]
    small = [*values, "design.stage_channels=(16,16,16)"]
    monkeypatch.setattr(sys, "argv", [*argv.split(), *(f"--config.{value}" for value in small)])
    main()
    first, last = read_metrics(tmp_path / "metrics.jsonl")
    assert last["test_accuracy"] > 0.9
    assert abs(last["test_views_accuracy"] - last["test_accuracy"]) < 0.2
    assert 0 < last["learning_rate"] < first["learning_rate"]
    assert RunFolder(tmp_path).config().model == "airbench94"
