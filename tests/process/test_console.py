import io
import logging
import os
import subprocess
import sys

import pytest

from flax_resnet.process.console import exit_code, print_log_lines
from flax_resnet.process.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("config.x is wrong"), "error: config.x is wrong"),
        (OSError(28, "No space left on device", "out.png"), "No space left on device: 'out.png'"),
        (MemoryError(), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "config.batch_size"),
        (RuntimeError("Unable to initialize backend 'cuda': no GPU"), "backend 'cuda'"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(error, words, capsys):
    def command() -> int:
        raise error

    assert exit_code(command) == 2
    line = capsys.readouterr().err
    assert words in line and line.startswith("error: ") and line.count("\n") == 1


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line(platform):
    code = (
        "import sys, jax; from flax_resnet.process.console import exit_code\n"
        "sys.exit(exit_code(lambda: len(jax.devices())))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]  # JAX itself may warn before
    assert line.startswith(f"error: JAX finds no device of JAX_PLATFORMS={platform}")
    assert "Traceback" not in result.stderr


def test_a_mistake_of_the_program_keeps_its_traceback():
    def command() -> int:
        raise KeyError("mistake")

    with pytest.raises(KeyError):
        exit_code(command)


def test_a_name_that_the_terminal_cannot_show_is_printed_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert exit_code(lambda: print("élan \udcff") or 0) == 0
    assert raw.getvalue() == b"\\xe9lan \\udcff\n"


def test_a_reader_that_closes_the_pipe_sees_no_traceback():
    code = (
        "import sys; from flax_resnet.process.console import exit_code\n"
        "sys.exit(exit_code(lambda: [print('line') for _ in range(100_000)] and 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_what_asyncio_logs_of_orbax_is_not_printed(caplog):
    """As it does for arrays that fail at the same time as the one whose error is raised."""
    print_log_lines()
    for package in ("orbax", "serving"):
        logging.getLogger("asyncio").error("exception was never retrieved: %s/files.py", package)
    assert caplog.messages == ["exception was never retrieved: serving/files.py"]


def test_what_orbax_logs_before_it_raises_it_is_not_printed(tmp_path):
    """Too few file descriptors to write a checkpoint with: one line, of the program's own."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from flax_resnet.process.console import exit_code\n"
        "from flax_resnet.runs.storage import begin_writing\n"
        "def save():\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "    arrays = {str(n): np.zeros(9) for n in range(99)}\n"
        "    try: begin_writing(Path(sys.argv[1]), arrays).result()\n"
        "    except Exception as error: raise OSError('many open files') from error\n"
        "exit_code(save)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stderr == "error: many open files\n"
