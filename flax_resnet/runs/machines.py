"""The machines that a run was trained on."""

import json
from pathlib import Path
from typing import Any

from flax_resnet.process.files import read_text, write_text
from flax_resnet.process.machine import machine

MACHINES_FILE = "machines.json"


def read_machines(path: Path) -> list[dict[str, Any]]:
    """Those of the run in a folder, as from process.machine; [] if not recorded."""
    try:
        found = json.loads(read_text(path / MACHINES_FILE))
    except (OSError, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def note_machine(path: Path) -> None:
    """Records that this machine trains the run in a folder.

    Raises:
      UserError: the file cannot be written.
    """
    known, this = read_machines(path), machine()
    if this not in known:
        write_text(path / MACHINES_FILE, json.dumps([*known, this], indent=2) + "\n")
