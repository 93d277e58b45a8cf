"""Output that cannot be written changes neither what a program does nor its exit code."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PROGRAM = """
import logging, pathlib, sys
from flax_resnet.process.console import exit_code, leave

def command():
    for _ in range(3000):
        logging.getLogger("flax_resnet.x").info("x" * 100)
        logging.getLogger("flax_resnet.x").warning("y" * 100)
    pathlib.Path(sys.argv[1]).write_text("saved")
    return 7

leave(exit_code(command))
"""


def nobody_reads() -> int:
    """The end of a pipe that is never read; its buffer holds 64 KiB."""
    global _unread
    _unread, end = os.pipe()
    return end


def reader_gone() -> int:
    reader, end = os.pipe()
    os.close(reader)
    return end


def stopped_terminal() -> int:
    """A terminal that takes some kilobytes and no more, as after Ctrl-S."""
    global _unread
    _unread, terminal = pty.openpty()
    return terminal


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("output", [nobody_reads, reader_gone, stopped_terminal, full_disk])
def test_output_that_cannot_be_written_changes_nothing(output: Callable[[], int], tmp_path: Path):
    end = output()
    start = time.monotonic()
    code = run(tmp_path / "file", stdout=end, stderr=end).wait(60)
    os.close(end)
    assert code == 7
    assert (tmp_path / "file").read_text() == "saved"
    assert time.monotonic() - start < 30  # not a second for each of 6,000 lines


def test_closed_outputs_do_not_end_up_in_files(tmp_path: Path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "file")]
    shell = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command]
    assert subprocess.run(shell, cwd=ROOT, timeout=60).returncode == 7
    assert (tmp_path / "file").read_text() == "saved"


def test_a_slow_reader_gets_every_line_in_order(tmp_path: Path):
    with run(tmp_path / "file", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        time.sleep(0.3)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert lines == [b"x" * 100, b"y" * 100] * 3000


def run(file: Path, **streams: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], cwd=ROOT, **streams)
