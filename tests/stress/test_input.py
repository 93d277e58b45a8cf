"""Short runs of the stress tests of bad input; their full counts are programs of their own."""

import importlib
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("name", "count", "seconds"),
    [
        ("configs", 20, 60),
        ("images", 40, 60),
        ("data", 40, 60),
        ("weights", 120, 60),
        pytest.param("configs", 60, 25, marks=pytest.mark.stress),
        pytest.param("images", 300, 10, marks=pytest.mark.stress),
        pytest.param("data", 150, 15, marks=pytest.mark.stress),
        pytest.param("weights", 1000, 60, marks=pytest.mark.stress),
    ],
)
def test_bad_input_never_crashes(name, count, seconds, tmp_path):
    arguments = ["--count", str(count), "--seconds", str(seconds)]
    command = [sys.executable, "-m", f"tests.stress.{name}", *arguments, "--output", str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr[-2000:]
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["failed"] == [] and result["count"] >= 20
    assert sum(row["refused"] for row in result["rows"]) > 0
    assert result["machine"]["cores"] >= 1


@pytest.mark.parametrize("name", ["configs", "images", "data", "weights"])
def test_a_case_that_fails_is_reported_with_its_seed(name, tmp_path, capsys, monkeypatch):
    stress = importlib.import_module(f"tests.stress.{name}")
    if name == "configs":
        monkeypatch.setattr(stress, "exercise", lambda config: 1 / 0)
        arguments = ["--count", "30"]
    elif name == "data":
        monkeypatch.setattr(stress, "read_npz", lambda *args: args[0].read_bytes().decode())
        monkeypatch.setitem(stress.KINDS, "npz", (1.0, stress.NpzMended))
        arguments = ["--count", "5", "--kinds", "npz"]
    elif name == "weights":
        monkeypatch.setattr(stress, "from_torch", lambda *args: subprocess.run(["true"]) and 1 / 0)
        monkeypatch.setattr(stress, "mutate", lambda content, random: content)
        arguments = ["--count", "4"]
    else:
        monkeypatch.setattr(stress, "read_files", None)  # the process dies at once
        arguments = ["--count", "1"]
    assert stress.main([*arguments, "--seed", "7", "--output", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert json.loads((tmp_path / f"{name}.json").read_text())["failed"]
