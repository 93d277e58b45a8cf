"""The paper's recipe in PyTorch, which the report compares with."""

import sys
from pathlib import Path

import pytest

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
