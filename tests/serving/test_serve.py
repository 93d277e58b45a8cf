"""The command, as a process."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection

import pytest

from flax_resnet.__main__ import main
from tests.conftest import ROOT
from tests.serving.test_app import PICTURE

COMMAND = [sys.executable, "-m", "flax_resnet", "serve"]


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 120)[0], "it says nothing"
    return process.stdout.readline()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_time_whoever_is_connected(tiny_run, signum):
    command = [*COMMAND, "--workdir", str(tiny_run), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    try:
        line = first_line(process)
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+) shows .*; Ctrl-C ends it\n", line)
        assert found, line
        port = int(found[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/predict", PICTURE)
        assert connection.getresponse().status == 200
        idle, slow = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\nab")
        time.sleep(0.3)
        start = time.monotonic()
        process.send_signal(signum)
        assert process.wait(20) == 0
        assert time.monotonic() - start < 5
        for client in (idle, slow, connection):
            client.close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()


def test_a_port_in_use_and_a_strange_host_are_refused(tiny_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--workdir", str(tiny_run), "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err
    for host in ("192.0.2.1", "no.such.invalid", "a" * 70):
        assert main(["serve", "--workdir", str(tiny_run), "--host", host]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--host or --port" in error
    for port in ("65536", "-1", "x"):
        with pytest.raises(SystemExit, match="2"):
            main(["serve", "--workdir", str(tiny_run), f"--port={port}"])


def test_without_the_packages_it_says_what_to_install(tiny_run):
    code = "import sys; sys.modules['uvicorn'] = None; from flax_resnet.__main__ import console\n"
    code += f"console(['serve', '--workdir', {str(tiny_run)!r}])"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.count("\n") == 1 and "pip install starlette uvicorn" in process.stderr
