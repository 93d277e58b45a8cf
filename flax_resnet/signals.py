"""SIGINT and SIGTERM as a wish to stop, asked for between steps."""

import signal
from types import FrameType


class StopRequest:
    """While entered, the first Ctrl-C or SIGTERM is remembered, the second Ctrl-C acts at once.

    Attributes:
      signum: the signal that came; None: none yet.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def __enter__(self) -> "StopRequest":
        self._old = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for signum in self._old:
            signal.signal(signum, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        print(f"\n{signal.Signals(signum).name}: saving, then stopping", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
