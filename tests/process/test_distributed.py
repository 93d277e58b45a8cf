"""How a process learns its place among several; tests/training/test_processes.py starts them."""

import pytest

from flax_resnet.process.distributed import Place, place_from
from flax_resnet.process.errors import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_options_and_variables_a_process_is_alone(monkeypatch):
    assert place_from(None, None, None) is None
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "node0:1234")  # of a whole cluster
    assert place_from(None, None, None) is None


def test_options_come_before_variables(monkeypatch):
    for name, value in zip(VARIABLES, ("[::1]:1234", "4", "3"), strict=True):
        monkeypatch.setenv(name, value)
    assert place_from(None, None, None) == Place("[::1]:1234", 4, 3)
    assert place_from("node0:99", 2, 0) == Place("node0:99", 2, 0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("node0:1234", 2, None), "--process-id"),
        ((None, 2, 0), "--coordinator"),
        (("node0", 2, 0), "--coordinator"),
        (("node0:0", 2, 0), "--coordinator"),
        ((":1234", 2, 0), "--coordinator"),
        (("node0:1234", 2, 2), "--process-id"),
        (("node0:1234", 2, -1), "--process-id"),
    ],
)
def test_a_place_that_is_none_is_refused_naming_the_option(options, field):
    with pytest.raises(UserError) as refused:
        place_from(*options)
    assert refused.value.field == field


def test_a_variable_that_is_no_number_is_refused(monkeypatch):
    for name, value in zip(VARIABLES, ("node0:1234", "two", "0"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError):
        place_from(None, None, None)
