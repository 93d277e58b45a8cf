"""Files that are never seen half-written, and never a pipe or a device."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax_resnet.process.errors import UserError


def open_regular(path: Path, mode: str = "r", **options: Any) -> Any:
    """Like open(), but refuses a pipe or a device, on which it could wait forever.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK, 0o666)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # open() itself refuses a folder
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a device or a pipe")

    return open(path, mode, opener=opener, **options)


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


def write_text(path: Path, text: str) -> None:
    """Writes a small file; it is on disk when this returns.

    Raises:
      UserError: it cannot be written.
    """
    with replacing(path) as part, open(part, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
