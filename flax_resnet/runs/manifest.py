"""A list of a folder's files with their SHA-256, by which damage is known before anything is read.

Orbax checks no content: a flipped bit in an array's file comes back as another number.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from flax_resnet.process.files import open_regular, read_text, write_text

NAME = "manifest.json"


class Damaged(Exception):
    """A folder is not as it was written; the text says in what."""


def write_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Lists every file below `folder`, on disk when this returns.

    Args:
      folder: complete, and written by nobody any more.
      about: kept with the list and under its checksum; JSON values.

    Raises:
      OSError, UserError: a file cannot be read, or the list not be written.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    content = {"about": about, "files": files}
    write_text(folder / NAME, json.dumps({"sha256": _digest(content)} | content, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What write_manifest was told about the folder.

    Raises:
      Damaged: the list is missing or not as it was written.
    """
    return _read(folder)["about"]


def check_files(folder: Path) -> None:
    """Reads every file that is listed.

    Raises:
      Damaged: naming the first that is not as it was written.
    """
    for name, expected in _read(folder)["files"].items():
        try:
            with open_regular(folder / name, "rb", largest=None) as file:
                size = os.fstat(file.fileno()).st_size
                if size != expected["bytes"]:
                    raise Damaged(f"{name} has {size} bytes in place of {expected['bytes']}")
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    raise Damaged(f"{name} has another checksum")
        except FileNotFoundError as error:
            raise Damaged(f"{name} is missing") from error
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from error


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(folder / NAME))
        expected = content.pop("sha256")
    except FileNotFoundError as error:
        raise Damaged(f"{NAME} is missing") from error
    except OSError as error:
        raise Damaged(f"{NAME} cannot be read: {error.strerror}") from error
    # Cut short or overwritten, it can be anything: not UTF-8, not JSON, not an object.
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(f"{NAME} is cut short or overwritten") from error
    if _digest(content) != expected:
        raise Damaged(f"{NAME} has another checksum")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
