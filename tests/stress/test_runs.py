"""Runs that are killed, stopped and corrupted, shortened; see docs/reliability.md."""

from types import ModuleType

import pytest

from tests.stress import corruption, kills, signals


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (kills, ["--count", "1", "--epochs", "3"]),
        (corruption, ["--count", "20"]),
        (signals, ["--count", "1"]),
        pytest.param(signals, ["--count", "30"], marks=pytest.mark.stress),
        pytest.param(kills, ["--count", "6", "--epochs", "6"], marks=pytest.mark.stress),
        pytest.param(corruption, ["--count", "160"], marks=pytest.mark.stress),
    ],
    ids=["one kill", "20 corruptions", "one signal", "signals", "kills", "corruption"],
)
def test_stress(program: ModuleType, arguments, tmp_path, capsys):
    assert program.main([*arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().out
