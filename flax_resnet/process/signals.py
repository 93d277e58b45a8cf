"""Stopping a run: while it trains, SIGINT, SIGTERM and SIGHUP ask it to save first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class StopRequest:
    """Whether a run should save and stop; truthy once it should.

    A program asks with `request`. While there is something to save, so do signals, if it
    `listens`: the handler only sets `signum`, as it may run within any line of Python, of a
    library's too, where an exception could be swallowed and a print could be the second one.

    Attributes:
      signum: the signal that asked for the stop; None: not asked yet.
    """

    def __init__(self, *, listens: bool = False) -> None:
        self.signum: int | None = None
        self._listens = listens
        self._handlers: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signum is not None

    def request(self, signum: int = signal.SIGTERM) -> None:
        """Asks the run to save and stop."""
        self.signum = signum

    @contextlib.contextmanager
    def saving_first(self) -> Iterator[None]:
        """Within, there is something to save before stopping.

        Outside of the main thread, where Python handles no signals, they act as ever.
        """
        if self._listens and threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                # nohup's wish is kept; a shell that ignores Ctrl-C for its background jobs is not
                # asked, so that `kill -INT` stops them.
                if signum == signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
                    self._handlers[signum] = signal.getsignal(signum)  # before _handle needs it
                    signal.signal(signum, self._handle)
        try:
            yield
        finally:
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            # A second Ctrl-C acts as it did before.
            signal.signal(signum, self._handlers[signum])
            os.kill(os.getpid(), signum)
        self.signum = self.signum or signum


def end_at_ctrl_c() -> None:
    """Lets Ctrl-C end the process at once, as SIGTERM does, even while C++ compiles.

    Python's KeyboardInterrupt waits for the next line of Python, comes as a traceback wherever that
    is, and is lost in a callback. Nothing is left half done that SIGKILL would not leave, too.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
