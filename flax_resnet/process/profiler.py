"""A trace of a few dispatches of training, for finding out where the time goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from flax_resnet.process.errors import UserError

WARM_UP = 2  # dispatches before the trace begins
TRACED = 3


class Profile:
    """Writes a trace of TRACED dispatches after the first WARM_UP, under a folder."""

    def __init__(self, folder: Path | None, log: Callable[[str], None]) -> None:
        """Makes the folder; None: nothing is traced.

        Raises:
          UserError: it cannot be made.
        """
        self._folder = folder
        self._log = log
        self._dispatches = 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--profile {folder} cannot be made: {error.strerror}") from error

    def before_dispatch(self, result: Any) -> None:
        """Takes note that a dispatch follows that of `result`."""
        if self._folder is None or self._dispatches > WARM_UP + TRACED:
            return
        if self._dispatches == WARM_UP:
            jax.block_until_ready(result)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        if self._dispatches == WARM_UP + TRACED:
            jax.block_until_ready(result)
            self._stop(self._folder)
        self._dispatches += 1

    def close(self) -> None:
        """Ends a trace that the run was too short for."""
        if self._folder is None or self._dispatches > WARM_UP + TRACED:
            return
        if self._dispatches > WARM_UP:
            self._stop(self._folder)
        else:
            self._log(f"no profile: the run took no more than {WARM_UP} dispatches")
        self._dispatches = WARM_UP + TRACED + 1

    def _stop(self, folder: Path) -> None:
        jax.profiler.stop_trace()
        traces = sorted(folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
        self._log(f"profile of {TRACED} dispatches: {traces[-1]} (open it at ui.perfetto.dev)")
