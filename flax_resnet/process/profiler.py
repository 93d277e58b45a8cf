"""A trace of a few dispatches of training, for finding out where the time goes."""

import logging
from pathlib import Path
from typing import Any

import jax

from flax_resnet.process.errors import UserError

logger = logging.getLogger(__name__)

WARM_UP = 2  # dispatches before the trace begins
TRACED = 3


class Profile:
    """Writes a trace of TRACED dispatches after the first WARM_UP, under a folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Raises:
          UserError: it cannot be made.
        """
        self._folder = folder
        self._dispatches = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--profile {folder} cannot be made: {error.strerror}",
                code="unwritable",
                field="--profile",
            ) from error

    def after_dispatch(self, result: Any) -> None:
        """Takes note of a dispatch with this result."""
        self._dispatches += 1
        if self._dispatches == WARM_UP:
            jax.block_until_ready(result)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        elif self._dispatches == WARM_UP + TRACED:
            jax.block_until_ready(result)
            self._stop()

    def close(self) -> None:
        """Ends a trace that the run was too short for."""
        if WARM_UP <= self._dispatches < WARM_UP + TRACED:
            self._stop()
        elif self._dispatches < WARM_UP:
            logger.warning("no profile: the run took fewer than %d dispatches", WARM_UP)

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        traces = sorted(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
        logger.info("profile of %d dispatches: %s (open it at ui.perfetto.dev)", TRACED, traces[-1])
