"""Every benchmark runs and writes its figures (--quick; the figures themselves mean nothing)."""

import importlib
import json

import pytest

COLUMNS = {
    "throughput": "images_per_second",
    "end_to_end": "train_py_images_per_second",
    "input_pipeline": "images_per_second",
    "startup": "total_s",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_benchmark(name, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # one device in the processes that it starts
    benchmark = importlib.import_module(f"benchmarks.{name}")
    result = benchmark.main(["--quick", "--output", str(tmp_path)])
    assert json.loads((tmp_path / f"{name}.json").read_text()) == result
    assert result["machine"]["cores"] >= 1 and result["machine"]["versions"]["jax"]
    figures = [row.get(COLUMNS[name]) for row in result["rows"]]
    assert any(figures) and all(figure is None or figure > 0 for figure in figures)
    assert COLUMNS[name].replace("_", " ") in capsys.readouterr().out


def test_all_runs_each():
    from benchmarks import all as every

    assert set(every.NAMES) == set(COLUMNS)
