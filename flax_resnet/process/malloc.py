"""What the C library does with freed memory, and the size of the system's pages."""

import ctypes
import os
import sys
import time
from typing import Any

# Of mallopt(3), glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_NEVER = -1
_TOP_PAD_BYTES = 64 << 20
_MADV_HUGEPAGE = 14  # of madvise(2)
_HUGE_PAGE_BYTES = 2 << 20

# After a step's outputs are ready, XLA still holds its memory that long; a program's first, longer.
_SECONDS_TO_FREE = 0.002
_SECONDS_TO_FREE_FIRST = 0.3
_GROWTH = 1.25

_libc: Any = None  # glibc, where freed memory is kept


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory for the next allocation; returns whether it does.

    By default it gives every large block back to the system. XLA's CPU backend frees its buffers
    after each step, so that the next one had them mapped and zeroed page by page again: a fifth of
    the processor's time in a training step of the revised network. The memory of the process stays
    at its peak instead, in huge pages where the system lends them: with its buffers in pages of
    4 KiB, a step of that network takes a twentieth longer.

    To be called before other threads allocate. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    settings = {
        _M_ARENA_MAX: 1,  # a thread's own arena has room for 64 MiB, and would map the rest
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: _NEVER,
        _M_TOP_PAD: _TOP_PAD_BYTES,
    }
    kept = all(mallopt(name, value) == 1 for name, value in settings.items())
    if kept:
        global _libc
        _libc = libc
        _advise_huge_pages(libc)
    return kept


class FreedMemory:
    """Gives freed memory back where it is kept but not used again.

    A step's buffers are one large block. Now and then a small one comes to lie in its place, and
    the next step takes a place never used before: without this, a process settles at four times
    the memory of a step.
    """

    def __init__(self) -> None:
        self._usual: int | None = None  # resident bytes after a step
        self._is_trimmed = False

    def after_step(self) -> None:
        """To be called between two steps, while no buffers are needed."""
        if _libc is None:
            return
        is_first = self._usual is None and not self._is_trimmed
        time.sleep(_SECONDS_TO_FREE_FIRST if is_first else _SECONDS_TO_FREE)
        resident = _resident_bytes()
        if self._is_trimmed:  # one step later: what a step needs
            self._usual, self._is_trimmed = resident, False
        elif self._usual is None or resident > _GROWTH * self._usual:
            self._give_back()
            self._is_trimmed = True

    def after_compiling(self) -> None:
        """Gives back what compiling took: a step's memory would come on top of some hundred MB."""
        if _libc is not None:
            self._give_back()
            self._usual, self._is_trimmed = None, False

    def _give_back(self) -> None:
        _libc.malloc_trim(0)
        _advise_huge_pages(_libc)  # the heap's end, which asked for them, was given back, too


freed_memory = FreedMemory()  # of the process


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _advise_huge_pages(libc: Any) -> None:
    """Asks for huge pages in the part of the heap that is about to be allocated.

    A block of half the machine's memory is allocated and freed at once. It is never touched, so it
    takes no memory; freed, it is where later blocks come from.
    """
    if _is_reserving_memory():
        return
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    block = libc.malloc(size)
    if block is None:  # a limit on the process's memory
        return
    start = -(-block // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    libc.madvise(start, block + size - start, _MADV_HUGEPAGE)
    libc.free(block)


def _is_reserving_memory() -> bool:
    """Whether the system sets memory aside for all that is allocated, used or not."""
    try:
        with open("/proc/sys/vm/overcommit_memory") as file:
            return file.read().strip() == "2"
    except OSError:
        return False
