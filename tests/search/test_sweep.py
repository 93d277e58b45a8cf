import functools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from flax_resnet.__main__ import main
from flax_resnet.process.errors import UserError
from flax_resnet.search.sweep import (
    Result,
    format_results,
    plan_sweep,
    read_results,
    run_sweep,
    tied,
)
from flax_resnet.training.loop import Outcome
from tests.conftest import ROOT

RECIPE = ROOT / "configs/quickstart.py"
TINY = [
    "--config.design.stage_sizes=(1,)",
    "--config.design.stage_channels=(4,)",
    "--config.design.kernel_sizes=(3,)",
    "--config.design.shortcut_kernels=(1,)",
    "--config.train_images=64",
    "--config.test_images=40",
    "--config.batch_size=32",
    "--config.num_epochs=1",
    "--config.conv=native",
]


def result(name: str, *accuracies: float, metric: str = "val_accuracy") -> Result:
    return Result({"x": name}, tuple(range(len(accuracies))), {metric: accuracies}, 1, 2.0)


def test_all_combinations_are_run_with_every_seed():
    overrides = ["--config.learning_rate=0.1,0.2", "--config.mean=(0,0,0),(1,1,1)"]
    runs = plan_sweep(RECIPE, [*overrides, "--config.seed=5", "--config.batch_size=32"], 3)
    assert len(runs) == 2 * 2 * 3
    assert [run.seed for run in runs[:4]] == [5, 6, 7, 5]
    assert {run.config.batch_size for run in runs} == {32}
    first, last = runs[0], runs[-1]
    assert (first.config.learning_rate, first.config.mean) == (0.1, (0, 0, 0))
    assert (last.config.learning_rate, last.config.mean, last.config.seed) == (0.2, (1, 1, 1), 7)
    assert first.folder == "learning_rate=0.1,mean=(0,0,0)/seed5"
    assert len({run.folder for run in runs}) == len(runs)


def test_a_bad_value_and_too_many_runs_are_refused():
    with pytest.raises(UserError) as bad:
        plan_sweep(RECIPE, ["--config.learning_rate=0.1,fast"], 1)
    assert bad.value.field == "config.learning_rate"
    with pytest.raises(UserError) as many:
        plan_sweep(RECIPE, [f"--config.batch_size={','.join(map(str, range(1, 201)))}"], 100)
    assert many.value.field == "--seeds" and "20,000 runs" in str(many.value)
    with pytest.raises(UserError, match="one, and --seeds N"):
        plan_sweep(RECIPE, ["--config.seed=0,1"], 2)


def test_what_would_mix_settings_is_refused():
    rates = "--config.learning_rate=0.1,0.2"
    for more in ("--config.learning_rate=0.3", "--config.learning_rate=0.3,0.4"):
        with pytest.raises(UserError, match="given twice"):
            plan_sweep(RECIPE, [rates, more], 1)
    with pytest.raises(UserError, match="would share the folder") as shared:
        plan_sweep(RECIPE, ["--config.init_from=runs/a b,runs/a_b"], 1)
    assert shared.value.field == "--out"


def test_values_may_follow_a_space():
    apart, joined = (
        plan_sweep(RECIPE, arguments, 1)
        for arguments in (
            ["--config.learning_rate", "0.1,0.2", "--config.flip=False"],
            ["--config.learning_rate=0.1,0.2", "--config.flip=False"],
        )
    )
    assert [run.folder for run in apart] == [run.folder for run in joined]
    assert [run.config.learning_rate for run in apart] == [0.1, 0.2]


def test_a_sweep_that_diverges_whole_says_so(tmp_path: Path, monkeypatch, capsys):
    def diverge(*_: Any, **__: Any) -> None:
        raise UserError("step 3: the loss is NaN", code="not_finite")

    diverging = functools.partial(run_sweep, train=diverge)
    monkeypatch.setattr("flax_resnet.search.sweep.run_sweep", diverging)
    command = ["sweep", "--config", str(RECIPE), "--out", str(tmp_path), "--seeds", "1"]
    for rest, text in ([], "every run has diverged"), (["--report-only"], "has no epoch"):
        assert main([*command, *rest]) == 2
        printed = capsys.readouterr().err
        assert text in printed and "without an epoch, left out: recipe" in printed


def test_a_value_given_twice_counts_once():
    assert len(plan_sweep(RECIPE, ["--config.learning_rate=0.1,0.2,0.1"], 2)) == 4


def test_after_a_run_that_is_not_finite_the_others_go_on(tmp_path: Path, log_lines):
    calls = []

    def train(config: Any, workdir: Path, **_: Any) -> None:
        calls.append(workdir.name)
        if workdir.name == "seed0":
            raise UserError("step 3: the loss is NaN", code="not_finite")
        if workdir.name == "seed2":
            raise UserError("the disk is full", code="unwritable")

    with pytest.raises(UserError, match="disk"):
        run_sweep(plan_sweep(RECIPE, [], 4), tmp_path, train=train)
    assert calls == ["seed0", "seed1", "seed2"]
    assert any("recipe/seed0 ends here" in line for line in log_lines)


def test_runs_with_fewer_epochs_or_another_config_are_not_counted(tmp_path: Path, log_lines):
    recipe = [*TINY, "--config.num_epochs=2"]
    runs = plan_sweep(RECIPE, recipe, 2)
    run_sweep(runs[:1], tmp_path)
    whole, part = (tmp_path / run.folder for run in runs)
    part.mkdir()
    config = json.loads((whole / "config.json").read_text()) | {"seed": 1}
    (part / "config.json").write_text(json.dumps(config))
    lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text(lines[0])
    (found,) = read_results(runs, tmp_path)
    assert (found.seeds, found.epochs) == ((0,), 2)
    assert any("recipe/seed1 has 1 of 2 epochs" in line for line in log_lines)
    with pytest.raises(UserError, match="config.batch_size=32, and now it is 16"):
        read_results(plan_sweep(RECIPE, [*recipe, "--config.batch_size=16"], 2), tmp_path)


def test_the_first_is_tied_with_what_chance_explains():
    first = result("a", 0.90, 0.92, 0.91)
    assert tied(first, result("b", 0.89, 0.92, 0.90), "val_accuracy") is True
    assert tied(first, result("c", 0.80, 0.81, 0.80), "val_accuracy") is False
    assert tied(first, result("d", 0.80), "val_accuracy") is None
    text = format_results([first, result("b", 0.89, 0.92, 0.90), result("c", 0.80, 0.81, 0.80)])
    assert (
        "91.00% ± 1.00%" in text and "Tied with the first (within 2 standard errors): x=b." in text
    )


def test_a_ranking_by_test_images_says_so():
    ranked = [
        result("a", 0.9, 0.8, metric="test_accuracy"),
        result("b", 0.1, metric="test_accuracy"),
    ]
    assert "Ranked by test images" in format_results(ranked)


def test_a_sweep_trains_resumes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["sweep", "--config", str(RECIPE), "--seeds=2", f"--out={tmp_path}", *TINY]
    command.append("--config.learning_rate=0.001,0.1")
    assert main([*command, "--report-only"]) == 2
    assert main(command) == 0
    folders = {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("metrics.jsonl")}
    assert folders == {f"learning_rate={rate}/seed{s}" for rate in ("0.001", "0.1") for s in (0, 1)}
    results = json.loads((tmp_path / "results.json").read_text())
    assert [len(one["test_accuracy"]["values"]) for one in results] == [2, 2]
    assert imread(tmp_path / "results.png").shape[1] > 500
    capsys.readouterr()
    assert main(command) == 0  # nothing is left to train
    assert capsys.readouterr().out.count("is finished") == 4


def test_seeds_trained_together_are_reported_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["sweep", "--config", str(RECIPE), "--seeds=2", f"--out={tmp_path}", *TINY]
    command += ["--together", "--config.image_size=8", "--config.design.pool_size=0"]
    assert main([*command, "--config.conv=winograd"]) == 2
    assert "config.conv" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "one program trains seed0, seed1" in output and "seed1: epoch 1/1 " in output
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert result["seeds"] == [0, 1] and len(result["test_accuracy"]["values"]) == 2
    assert main(command) == 0  # nothing is left to train
    assert capsys.readouterr().out.count("is finished") == 2


def test_a_stop_ends_the_sweep(tmp_path: Path):
    calls = []

    def train(config: Any, workdir: Path, *, devices: Any, stop: Any) -> Outcome:
        calls.append(workdir.name)
        stop.signum = signal.SIGTERM if len(calls) == 2 else None
        return Outcome(stop.signum, 0)

    runs = plan_sweep(RECIPE, [], 3)
    assert run_sweep(runs, tmp_path, train=train) == signal.SIGTERM
    assert calls == ["seed0", "seed1"]
    assert read_results(runs, tmp_path) == []
