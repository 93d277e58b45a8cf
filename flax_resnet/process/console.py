"""What every command shares: log lines on the terminal, an exit code, one line for bad input."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from flax_resnet.process.errors import UserError, shortened
from flax_resnet.process.signals import interrupted_code

BAD_INPUT = 2
READER_GONE = 128 + 13  # SIGPIPE


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command; returns its exit code, or 2 after printing what the user can fix."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file or a class may have a name that the terminal's encoding does not hold.
        sys.stdout.reconfigure(errors="backslashreplace")
    print_log_lines()
    sys.unraisablehook = _unraisable
    try:
        code = command()
        sys.stdout.flush()
        return code
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt as stopped:
        return interrupted_code(stopped)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _discard(sys.stdout)
        return READER_GONE
    except OSError as error:  # a full disk, a folder without permission, a name too long
        message = shortened(str(error))
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        message = (
            f"out of memory ({shortened(str(error), 120) or 'MemoryError'}): reduce "
            "config.batch_size, config.eval_batch_size or the design"
        )
    _print(f"error: {message}", sys.stderr)
    return BAD_INPUT


def print_log_lines() -> None:
    """Prints what the package logs; silences the libraries below warnings of their own kind.

    Orbax logs every step of its work through absl, as a warning.
    """
    logger = logging.getLogger("flax_resnet")
    if not any(isinstance(handler, _Printer) for handler in logger.handlers):
        logger.addHandler(_Printer())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("absl").setLevel(logging.ERROR)


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    # Of several arrays that orbax writes at once, those after one that failed report to nobody.
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


class _Printer(logging.Handler):
    """Prints messages as they are: to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        _print(record.getMessage(), sys.stderr if warns else sys.stdout)


def _print(line: str, stream: Any) -> None:
    """Prints a line, or drops it: neither a closed pipe nor a full disk may end a run."""
    try:
        print(line, file=stream, flush=True)
    except OSError:
        _discard(stream)


def _discard(stream: Any) -> None:
    """Sends what follows nowhere, the flush at exit included."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave(code: int) -> NoReturn:
    """Ends the program; after a signal without waiting for any thread.

    A compilation may have minutes to go, and a checkpoint that is being written is not needed: the
    ones before it stay.
    """
    if code <= 128:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_out_of_memory(error: Exception) -> bool:
    # XLA's by its text: it has no class of its own, and JAX need not be imported here.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
