"""Short runs of the stress tests of bad input; their full counts are programs of their own."""

import importlib
import json

import pytest


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("configs", ["--count", "60", "--seconds", "25"]),
        ("images", ["--count", "300", "--seconds", "15"]),
        ("data", ["--count", "150", "--seconds", "20"]),
    ],
)
def test_bad_input_never_crashes(name, arguments, tmp_path):
    stress = importlib.import_module(f"tests.stress.{name}")
    assert stress.main([*arguments, "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["failed"] == [] and result["count"] >= 20
    assert sum(row["refused"] for row in result["rows"]) > 0
    assert result["machine"]["cores"] >= 1


@pytest.mark.parametrize("name", ["configs", "images", "data"])
def test_a_case_that_fails_is_reported_with_its_seed(name, tmp_path, capsys, monkeypatch):
    stress = importlib.import_module(f"tests.stress.{name}")
    if name == "configs":
        monkeypatch.setattr(stress, "exercise", lambda config: 1 / 0)
        arguments = ["--count", "30"]
    elif name == "data":
        monkeypatch.setattr(stress, "read_npz", lambda *args: args[0].read_bytes().decode())
        monkeypatch.setitem(stress.KINDS, "npz", (1.0, stress.NpzMended))
        arguments = ["--count", "5", "--kinds", "npz"]
    else:
        monkeypatch.setattr(stress, "FILE_SECONDS", 0.0)
        arguments = ["--count", "1"]
    assert stress.main([*arguments, "--seed", "7", "--output", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert json.loads((tmp_path / f"{name}.json").read_text())["failed"]
