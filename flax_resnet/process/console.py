"""What every command shares: log lines on the terminal, an exit code, one line for bad input."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from flax_resnet.process.distributed import must_not_wait
from flax_resnet.process.errors import UserError, shortened
from flax_resnet.process.output import (
    STDERR,
    STDOUT,
    discard,
    occupy_standard_descriptors,
    print_line,
    put,
)

BAD_INPUT = 2
READER_GONE = 128 + 13  # SIGPIPE


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command; returns its exit code, or 2 after printing what the user can fix."""
    occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file or a class may have a name that the terminal's encoding does not hold.
            stream.reconfigure(errors="backslashreplace")
    print_log_lines()
    sys.unraisablehook = _unraisable
    try:
        code = command()
        if sys.stdout is not None and not STDOUT.is_blocked:
            sys.stdout.flush()
        return code
    except UserError as error:
        message = str(error)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        discard("stdout")
        return READER_GONE
    except OSError as error:  # a full disk, a folder without permission, a name too long
        message = shortened(str(error))
    except Exception as error:
        message = _machines_problem(error)
        if message is None:
            raise
    print_line(f"error: {message}", STDERR)
    return BAD_INPUT


def print_log_lines() -> None:
    """Prints what the package logs; silences orbax.

    It logs every step of its work through absl as a warning, and each exception as an error before
    it raises it. Of several arrays that it writes at once, asyncio logs those that failed after
    the first, when they are collected: now or later.
    """
    logger = logging.getLogger("flax_resnet")
    if not any(isinstance(handler, _Printer) for handler in logger.handlers):
        logger.addHandler(_Printer())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


class _Printer(logging.Handler):
    """Prints messages as they are: to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        print_line(record.getMessage(), STDERR if warns else STDOUT)


def _unraisable(error: "sys.UnraisableHookArgs") -> None:
    # Of several arrays that orbax writes at once, those after one that failed report to nobody.
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


def leave(code: int) -> NoReturn:
    """Ends the program; without waiting for a thread after a signal, nor for a blocked output.

    Nor, after an error in one of several processes, for the others.
    """
    for output in (STDOUT, STDERR):
        output.drain()
    if code <= 128 and not (STDOUT.is_blocked or STDERR.is_blocked or must_not_wait()):
        sys.exit(code)
    if not STDOUT.is_blocked:
        put("", "stdout")  # flushes it
    os._exit(code)


def _machines_problem(error: Exception) -> str | None:
    """What is wrong with the machine, not the program, in one line; None: nothing."""
    # XLA's and JAX's by their texts: they have no classes, and JAX need not be imported here.
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return (
            f"out of memory ({shortened(text, 120) or 'MemoryError'}): reduce config.batch_size, "
            "config.eval_batch_size or the design"
        )
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).name
    wanted = os.environ.get("JAX_PLATFORMS")
    if "nable to initialize backend" in text or (wanted and raised_in == "xla_bridge.py"):
        detail = f" ({shortened(text, 200)})" if text else ""
        return (
            f"JAX finds no device of JAX_PLATFORMS={wanted or ''}: unset it, or install what JAX "
            f"needs for that device{detail}"
        )
    return None
