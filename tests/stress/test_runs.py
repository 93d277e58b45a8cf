"""Short runs of the stress tests of trainings: killed, damaged."""

import pytest

from tests.stress import corruption, kills


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (kills, ["--count", "6", "--epochs", "6"]),
        (corruption, ["--count", "160"]),
    ],
    ids=["kills", "corruption"],
)
def test_stress(program, arguments, tmp_path, capsys):
    assert program.main([*arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().out
