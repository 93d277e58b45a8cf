"""Runs that are killed and damaged; full counts: python -m tests.stress.kills, .corruption."""

from types import ModuleType

import pytest

from tests.stress import corruption, kills


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (kills, ["--count", "1", "--epochs", "3"]),
        (corruption, ["--count", "20"]),
        pytest.param(kills, ["--count", "6", "--epochs", "6"], marks=pytest.mark.stress),
        pytest.param(corruption, ["--count", "160"], marks=pytest.mark.stress),
    ],
    ids=["one kill", "20 corruptions", "kills", "corruption"],
)
def test_stress(program: ModuleType, arguments, tmp_path, capsys):
    assert program.main([*arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().out
