"""Files that are never seen half-written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flax_resnet.process.errors import UserError


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
