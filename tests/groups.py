"""Groups of processes on this machine, each with some of the virtual devices."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 240.0  # seconds that a group may take; no more than this machine's worst hour


def start_group(
    program: Sequence[str], num_processes: int, devices: int, **environment: str
) -> list[subprocess.Popen[str]]:
    """Starts the Python program once a process, with the options that tell each its place.

    Args:
      program: arguments of Python.
      num_processes: how many.
      devices: virtual CPU devices of each.
      **environment: variables besides.
    """
    flags = f"--xla_force_host_platform_device_count={devices}"
    variables = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} | environment
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(num_processes)]
    return [
        subprocess.Popen(
            [sys.executable, *program, *place, "--process-id", str(number)],
            cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(num_processes)
    ]  # fmt: skip


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def outputs(group: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """What each process printed until its end: to stdout, where gloo tells of its connections, too,
    and to stderr.
    """
    try:
        return [process.communicate(timeout=PATIENCE) for process in group]
    finally:
        for process in group:
            process.kill()
            process.wait()
