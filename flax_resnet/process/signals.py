"""Stopping a run: SIGINT, SIGTERM and SIGHUP act at once, or ask the run to save first."""

import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """A signal arrived while there was nothing to save.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class StopRequest:
    """Whether a run should save and stop; truthy once it should.

    A program asks with `request`. Within `listening`, so do signals: they raise Interrupted while
    there is nothing to save, and only set `signum` within `saving_first`, where a second Ctrl-C
    raises KeyboardInterrupt. The handlers print nothing: the output may be what is blocked.

    Attributes:
      signum: the signal that asked for the stop; None: not asked yet.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._saves_first = False
        self._is_listening = False

    def __bool__(self) -> bool:
        return self.signum is not None

    def request(self, signum: int = signal.SIGTERM) -> None:
        """Asks the run to save and stop."""
        self.signum = signum

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handles signals within; outside the main thread, where Python handles none, nothing."""
        old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                # nohup's wish is kept; a shell that ignores Ctrl-C for its background jobs is not
                # asked, so that `kill -INT` stops them.
                if signum == signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
                    old[signum] = signal.signal(signum, self._handle)
        self._is_listening = bool(old)
        try:
            yield self
        finally:
            self._is_listening = False
            for signum, handler in old.items():
                signal.signal(signum, handler)

    @contextlib.contextmanager
    def saving_first(self) -> Iterator[None]:
        """Within, there is something to save before stopping."""
        self._saves_first = True
        try:
            yield
        finally:
            self._saves_first = False

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function that does not return to Python for long, such as a compilation.

        Python runs signal handlers in the main thread between two of its own instructions. While
        listening, the function therefore runs in another thread; a signal ends the wait for it.
        """
        if not self._is_listening or threading.current_thread() is not threading.main_thread():
            return function()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # raised again in the caller
                future.set_exception(error)

        threading.Thread(target=work, name="compiler", daemon=True).start()
        return future.result()

    def _handle(self, signum: int, _: FrameType | None) -> None:
        second = self.signum is not None
        self.signum = signum if not second else self.signum
        if not self._saves_first:
            raise Interrupted(signum)
        if second and signum == signal.SIGINT:
            raise KeyboardInterrupt


def interrupted_code(stopped: KeyboardInterrupt) -> int:
    """The exit code of a program that was interrupted."""
    return 128 + (stopped.signum if isinstance(stopped, Interrupted) else signal.SIGINT)
