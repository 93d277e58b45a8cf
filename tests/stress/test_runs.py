"""Runs that are killed, stopped and corrupted, shortened; see docs/reliability.md."""

from types import ModuleType

import pytest

from tests.stress import corruption, kills, requests, signals
from tests.stress.arguments import arguments as stress_arguments
from tests.stress.clients import Client
from tests.stress.tally import Tally


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (kills, ["--count", "1", "--epochs", "3"]),
        (corruption, ["--count", "20"]),
        (signals, ["--count", "1"]),
        pytest.param(signals, ["--count", "30"], marks=pytest.mark.stress),
        pytest.param(kills, ["--count", "6", "--epochs", "6"], marks=pytest.mark.stress),
        pytest.param(corruption, ["--count", "160"], marks=pytest.mark.stress),
        pytest.param(requests, ["--count", "90"], marks=pytest.mark.stress),
    ],
    ids=["one kill", "20 corruptions", "one signal", "signals", "kills", "corruption", "requests"],
)
def test_stress(program: ModuleType, arguments, tmp_path, capsys):
    assert program.main([*arguments, "--output", str(tmp_path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "outcome"),
    [("", "closed"), ("HTTP/1.1 200 OK", "answered"), ("HTTP/1.1 408 Request Timeout", "refused"),
     ("HTTP/1.1 500 Internal Server Error", None), ("TimeoutError: timed out", None)],
)  # fmt: skip
def test_an_odd_request_is_counted_or_a_failure(line, outcome, monkeypatch):
    monkeypatch.setattr(Client, "run", lambda self, port: line)
    tally = Tally(stress_arguments("requests", "", 1).parse_args([]))
    requests.Sender("kind", 3, Client([]), 0).count(tally, None)
    assert tally.cases == 1 and bool(tally.failures) == (outcome is None)
    assert outcome is None or tally._outcomes["kind"][outcome] == 1
    requests.Sender("kind", 4, Client([]), 0).count(tally, "the good request after it: wrong")
    assert "case 4" in tally.failures[-1]
