"""Output that neither ends a run nor holds it up, wherever it goes.

The reader of a pipe may be gone, a disk full, a descriptor closed; a terminal may be stopped
(Ctrl-S), a pager may wait for a key.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from typing import Literal

from flax_resnet.process.errors import printable

PATIENCE = 1.0  # seconds that a line may take before nobody waits for it
MAX_WAITING = 1000  # pieces of text; more are dropped

Name = Literal["stdout", "stderr"]


class Output:
    """sys.stdout or sys.stderr, written to by a thread of its own; a text stream for tqdm, too.

    A write returns when the text is written, as usual, but after PATIENCE at most; as long as the
    stream is blocked, at once.
    """

    def __init__(self, name: Name) -> None:
        self._name: Name = name
        self._waiting: queue.Queue[tuple[str, threading.Event]] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self.is_blocked = False

    def write(self, text: str) -> int:
        """Writes text, or drops it; nothing is raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((text, written))
            if not self.is_blocked:
                self.is_blocked = not written.wait(PATIENCE)
        return len(text)

    def flush(self) -> None:
        """Does nothing: each write is flushed."""

    def drain(self) -> None:
        """Gives a blocked stream another PATIENCE seconds to take what waits."""
        end = time.monotonic() + PATIENCE
        while self.is_blocked and time.monotonic() < end:
            time.sleep(0.01)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        stream = getattr(sys, self._name)
        return stream is not None and stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return getattr(sys, self._name).fileno()

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return getattr(getattr(sys, self._name), "encoding", None) or "utf-8"

    def _work(self) -> None:
        while True:
            text, written = self._waiting.get()
            put(text, self._name)
            self.is_blocked = self.is_blocked and not self._waiting.empty()
            written.set()


STDOUT, STDERR = Output("stdout"), Output("stderr")


def put(text: str, name: Name) -> None:
    """Writes text to a stream now; what cannot be written is dropped."""
    stream = getattr(sys, name)
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError, AttributeError):  # failed, closed, None
        discard(name)


def discard(name: Name) -> None:
    """Sends what follows on a stream nowhere, the flush at exit included."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())


def occupy_standard_descriptors() -> None:
    """Opens /dev/null for each of the descriptors 0 to 2 that is closed (`>&-`).

    The next file opened would get its number, and what a C library prints would end up in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one


def print_line(line: str, output: Output) -> None:
    """Prints a line; what does not print is escaped."""
    output.write(printable(line, keep="\n") + "\n")
