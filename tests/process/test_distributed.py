"""How a process learns its place among several; tests/training/test_processes.py starts them."""

import os
import socket
import subprocess
import sys

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


def test_an_exception_that_cpp_does_not_catch_ends_in_one_line():
    program = (
        "import ctypes; from flax_resnet.process import distributed; "
        "distributed._end_in_one_line(); "
        "ctypes.CDLL('libstdc++.so.6')._ZSt17__throw_bad_allocv()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: another process") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("cause", "words"),
    [("Gloo all-reduce failed: Connection closed by peer", "another process"),
     ("No space left on device", "the checkpoint cannot be written")],
)  # fmt: skip
def test_a_checkpoint_lost_with_a_process_is_no_fault_of_the_disk(cause, words):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = f"""
import jax
from flax_resnet.process.distributed import Place, joined
from flax_resnet.process.errors import UserError
try:
    with joined(Place("127.0.0.1:{port}", 1, 0)):
        try:
            raise jax.errors.JaxRuntimeError("{cause}")
        except jax.errors.JaxRuntimeError as error:
            raise UserError("the checkpoint cannot be written") from error
except UserError as error:
    print(error)
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith(words), done.stderr
