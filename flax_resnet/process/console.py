"""How every command ends: with an exit code, and where its input was bad with one line."""

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from flax_resnet.process.errors import UserError, shortened
from flax_resnet.process.signals import interrupted_code

BAD_INPUT = 2
READER_GONE = 128 + 13  # SIGPIPE


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command; returns its exit code, or 2 after printing what the user can put right."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file or a class may have a name that the terminal's encoding does not hold.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
        return code
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt as stopped:
        return interrupted_code(stopped)
    except BrokenPipeError:  # the output went to `head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return READER_GONE
    except OSError as error:  # a full disk, a folder without permission, a name too long
        message = shortened(str(error))
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        message = (
            f"out of memory ({shortened(str(error), 120) or 'MemoryError'}): take a smaller "
            "config.batch_size, config.eval_batch_size or design"
        )
    print(f"error: {message}", file=sys.stderr)
    return BAD_INPUT


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
