"""Files that are never seen half-written, never a pipe or a device, and never read without end."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax_resnet.process.errors import UserError

LARGEST = 256 << 20  # bytes of a file that is read whole; those of a run have kilobytes


def open_regular(
    path: Path, mode: str = "r", *, largest: int | None = LARGEST, **options: Any
) -> Any:
    """Like open(), but refuses a pipe or a device, on which it could wait forever, and a huge file.

    Args:
      path: the file.
      mode: as for open().
      largest: bytes that it may have; None: any number.
      **options: as for open().

    Raises:
      OSError: it cannot be opened, is no regular file, or is larger.
    """

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK, 0o666)
        status = os.fstat(descriptor)
        problem = errno.EINVAL, "it is a device or a pipe"
        if stat.S_ISREG(status.st_mode):
            if largest is None or status.st_size <= largest:
                return descriptor
            problem = errno.EFBIG, f"it has {status.st_size:,} bytes, more than {largest:,}"
        elif stat.S_ISDIR(status.st_mode):  # open() itself refuses a folder
            return descriptor
        os.close(descriptor)
        raise OSError(*problem)

    return open(path, mode, opener=opener, **options)


def read_text(path: Path) -> str:
    """The text of a regular file.

    Raises:
      OSError: as for open_regular.
      UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path, encoding="utf-8") as file:
        return file.read()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to; what stands there afterwards takes its place.

    Raises:
      UserError: it cannot be written; what was at `path` before is still there. Neither a device
        (/dev/null) nor a pipe is replaced by a file.
    """
    # The process's number: a run's picture may be redrawn by a command while it trains.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(
                f"{path} is a device or a pipe; name a file", code="unwritable", field=str(path)
            )
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            code="unwritable",
            field=str(path),
        ) from error
    finally:
        with contextlib.suppress(OSError):  # as where the folder is none
            part.unlink()


def make_folder(path: Path, option: str) -> None:
    """Makes a folder and those above it, where they are not there.

    Raises:
      UserError: it cannot be made; the option that names it is named.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be created: {error.strerror}", code="unwritable", field=option
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a small file; it is on disk when this returns.

    Raises:
      UserError: it cannot be written.
    """
    with replacing(path) as part, open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
