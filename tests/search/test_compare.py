import json
import shutil
from pathlib import Path

import pytest

from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.search.compare import compare_runs, differing_fields
from flax_resnet.search.sweep import format_results


def copy_of(run: Path, folder: Path, accuracy: float, **fields: object) -> Path:
    """The run under other fields, with another test accuracy in its last epoch."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    config = json.loads((folder / "config.json").read_text())
    for field, value in fields.items():
        part, (*groups, last) = config, field.split(".")
        for group in groups:
            part = part[group]
        part[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    *rows, last = (folder / "metrics.jsonl").read_text().splitlines()
    row = json.dumps(json.loads(last) | {"test_accuracy": accuracy})
    (folder / "metrics.jsonl").write_text("\n".join([*rows, row]) + "\n")
    return folder


@pytest.fixture
def runs(tiny_run, tmp_path) -> list[Path]:
    """Two seeds of a recipe, and another recipe with wider layers and larger steps."""
    return [
        copy_of(tiny_run, tmp_path / "plain/seed0", 0.5),
        copy_of(tiny_run, tmp_path / "plain/seed1", 0.6, seed=1, eval_batch_size=8),
        copy_of(
            tiny_run, tmp_path / "wide", 0.9, learning_rate=0.5,
            **{"design.stage_channels": [8, 8]},
        ),
    ]  # fmt: skip


def test_seeds_of_a_recipe_belong_together(runs):
    best, other = compare_runs(runs)
    assert best.runs == ("wide",) and other.runs == ("seed0", "seed1")
    assert dict(best.setting) == {"learning_rate": "0.5", "design.stage_channels": "(8, 8)"}
    assert dict(other.setting) == {"learning_rate": "0.001", "design.stage_channels": "(4, 8)"}
    found = other.spread("test_accuracy")
    assert found.mean == pytest.approx(0.55) and found.std == pytest.approx(0.0707, abs=1e-4)
    assert best.params != other.params and other.epochs == 2
    text = format_results([best, other])
    assert "seed0, seed1" in text and "55.00% ± 7.07%" in text and "(8, 8)" in text
    assert f"{other.params:,}" in text and "cannot tell a difference from chance" in text


def test_a_copy_of_a_run_is_told_from_another_seed(runs, tmp_path, log_lines):
    compare_runs(runs)
    assert not [line for line in log_lines if "same seed" in line]
    copy = copy_of(runs[0], tmp_path / "copy", 0.5)
    compare_runs([runs[0], copy])
    assert "seed0, copy: some have the same seed, and yet count as several runs" in log_lines


def test_an_unfinished_run_is_no_seed_of_a_finished_one(runs):
    first, *_ = (runs[1] / "metrics.jsonl").read_text().splitlines()
    (runs[1] / "metrics.jsonl").write_text(f"{first}\n")
    found = {result.runs: result.epochs for result in compare_runs(runs[:2])}
    assert found == {("seed0",): 2, ("seed1",): 1}


def test_recipes_that_differ_in_much_have_a_column_each(runs, tmp_path):
    fields = {"schedule": "cosine", "optimizer": "nesterov", "pad_mode": "reflect", "mixup": 0.2}
    far = copy_of(runs[0], tmp_path / "far", 0.7, **fields, weight_decay=1 / 60)
    lines = format_results(compare_runs([runs[0], far])).splitlines()
    assert lines[0].split() == ["runs", "far", "seed0"]
    assert ["weight_decay", "0.0166667", "0.0"] in [line.split() for line in lines]


def test_fields_that_no_result_depends_on_do_not_differ(runs):
    assert differing_fields([RunFolder(path) for path in runs[:2]]) == {}


def test_runs_without_an_epoch_are_left_out(runs, log_lines):
    (runs[0] / "metrics.jsonl").unlink()
    best, other = compare_runs(runs)
    assert other.runs == ("seed1",) and any("no epoch yet" in line for line in log_lines)
    with pytest.raises(UserError) as error:
        compare_runs(runs[:1])
    assert error.value.code == "missing"
    with pytest.raises(UserError) as error:
        compare_runs([runs[1], runs[1]])
    assert error.value.code == "conflict"
