"""SIGINT and SIGTERM: at once while there is nothing to save, else as a wish to stop."""

import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """A signal came while there was nothing to save.

    Attributes:
      signum: which.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class StopRequest:
    """While entered, Ctrl-C and SIGTERM raise Interrupted, or within `remembered` are remembered.

    Of what is remembered, a second Ctrl-C raises KeyboardInterrupt. Outside of the main thread,
    where Python handles no signals, nothing is changed.

    Attributes:
      signum: the signal that came; None: none yet.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._remembers = False

    def __bool__(self) -> bool:
        return self.signum is not None

    def __enter__(self) -> "StopRequest":
        self._old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._old[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Within, there is something to save first."""
        self._remembers = True
        try:
            yield
        finally:
            self._remembers = False

    def _handle(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        if not self._remembers:
            raise Interrupted(signum)
        print(f"\n{signal.Signals(signum).name}: saving, then stopping", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def while_answering_signals(function: Callable[[], T]) -> T:
    """Calls a function that runs for long without returning to Python, such as a compilation.

    Python handles signals in the main thread and between two of its own instructions, so the
    function runs in another thread, which goes on if a signal ends the waiting for it.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # it belongs to the caller, whatever it is
            future.set_exception(error)

    threading.Thread(target=work, name="compiler", daemon=True).start()
    return future.result()


def interrupted_code(stopped: KeyboardInterrupt) -> int:
    """The exit code of a program that was interrupted."""
    return 128 + (stopped.signum if isinstance(stopped, Interrupted) else signal.SIGINT)
