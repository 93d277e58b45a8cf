"""What the C library does with freed memory."""

import ctypes
import sys

# Of mallopt(3), glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_NEVER = -1
_TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory for the next allocation; returns whether it does.

    By default it gives every large block back to the system. XLA's CPU backend frees its buffers
    after each step, so that the next one had them mapped and zeroed page by page again: a fifth of
    the processor's time in a training step of the revised network. The memory of the process stays
    at its peak instead.

    To be called before other threads allocate. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    settings = {
        _M_ARENA_MAX: 1,  # a thread's own arena has room for 64 MiB, and would map the rest
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: _NEVER,
        _M_TOP_PAD: _TOP_PAD_BYTES,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
