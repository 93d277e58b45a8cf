"""Short runs of the stress tests of trainings: killed, damaged, long."""

import pytest

from tests.stress import corruption, growth, kills


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (kills, ["--count", "6", "--epochs", "6"]),
        (corruption, ["--count", "160"]),
        (growth, ["--count", "40", "--limit", "2048"]),  # it has not settled by then
    ],
    ids=["kills", "corruption", "growth"],
)
def test_stress(program, arguments, tmp_path, capsys):
    assert program.main([*arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().out
