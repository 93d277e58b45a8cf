"""Every benchmark runs and writes its figures (--quick; the figures themselves mean nothing)."""

import importlib
import importlib.util
import json
import math

import pytest

COLUMNS = {
    "throughput": "images_per_second",
    "end_to_end": "train_py_images_per_second",
    "input_pipeline": "images_per_second",
    "startup": "total_s",
    "streaming": "images_per_second",
    "cost_model_fit": "largest",
}


SLOW = ("end_to_end", "startup")  # each starts train.py, some more than once


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.stress] if n in SLOW else []) for n in COLUMNS]
)
def test_benchmark(name, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # one device in the processes that it starts
    benchmark = importlib.import_module(f"benchmarks.{name}")
    result = benchmark.main(["--quick", "--output", str(tmp_path)])
    assert json.loads((tmp_path / f"{name}.json").read_text()) == result
    assert result["machine"]["cores"] >= 1 and result["machine"]["versions"]["jax"]
    # A case that did not run has a note in place of a number: PyTorch's, where there is none.
    rows = [row for row in result["rows"] if not row.get("note")]
    assert rows and all(0 < row[COLUMNS[name]] < math.inf for row in rows)
    if name == "throughput":
        without = [row for row in result["rows"] if row.get("note")]
        assert any(row["framework"] == "flax" for row in rows)
        assert all(row["framework"] == "torch" for row in without)
        assert not without or importlib.util.find_spec("torch") is None
    assert COLUMNS[name].replace("_", " ") in capsys.readouterr().out


def test_throughput_keeps_what_it_has(tmp_path, monkeypatch):
    from benchmarks import measure, throughput

    def cut_off(*_, **__):
        raise KeyboardInterrupt

    rows = [{"dtype": "float32", "images_per_second": 1.0}]
    monkeypatch.setattr(throughput, "measure_group", lambda *_: rows)
    monkeypatch.setattr(measure, "report", cut_off)
    with pytest.raises(KeyboardInterrupt):
        throughput.main(["--quick", "--output", str(tmp_path)])
    assert json.loads((tmp_path / "throughput.json").read_text())["rows"] == rows


def test_throughput_without_a_case(capsys):
    from benchmarks import throughput

    with pytest.raises(SystemExit):
        throughput.main(["--quick", "--batch-size", "7"])
    assert "no case" in capsys.readouterr().err


def test_all_runs_each():
    from benchmarks import all as every

    # Gigabytes of disk, and ten minutes of compilation.
    assert {*every.NAMES, "streaming", "cost_model_fit"} == set(COLUMNS)


def test_formats_agree_on_a_run(tiny_run, tmp_path, capsys):
    from benchmarks import formats

    result = formats.main(["--quick", "--workdir", str(tiny_run), "--output", str(tmp_path)])
    assert {"safetensors", "stablehlo"} < {row["format"] for row in result["rows"]}
    for row in result["rows"]:
        assert row["other_top_1"] == 0 and row["largest_difference"] < 1e-5
