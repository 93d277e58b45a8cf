"""What a figure was measured on: processor, devices and versions."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores of this process, JAX's devices, system and versions, ready for JSON.

    Args:
      packages: whose versions to give; None stands for one that is not installed.
    """
    import jax

    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "devices": [device.device_kind for device in jax.local_devices()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def usable_cores() -> int:
    """Cores that this process may use, where the system tells; else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
