"""What the terminal shows while an epoch runs, without ever waiting for the device."""

import collections
import logging
import time
from typing import Any

import jax
from tqdm import tqdm

from flax_resnet.engine.state import MetricSums
from flax_resnet.process.output import STDERR

logger = logging.getLogger(__name__)

BAR_SECONDS = 0.5  # between two looks at the device
LINE_SECONDS = 30.0  # between two lines where there is no terminal


class EpochProgress:
    """A live bar on a terminal, else a plain line now and then.

    The figures shown are those of the newest step that the device has already finished.
    """

    def __init__(self, title: str, *, total_steps: int, first_step: int, first_images: int) -> None:
        self._title = title
        self._total = total_steps
        self._first_images = first_images
        self._start = self._last_look = self._last_line = time.monotonic()
        self._pending: collections.deque[tuple[int, MetricSums]] = collections.deque()
        self._bar: Any = None
        if STDERR.isatty():
            self._bar = tqdm(
                file=STDERR,
                total=total_steps,
                initial=first_step,
                desc=title,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n}/{total}{postfix} ETA {remaining}",
            )

    def note(self, step: int, sums: MetricSums) -> None:
        """Takes note of a dispatched step; looks at the device at most twice a second."""
        now = time.monotonic()
        if now - self._last_look < BAR_SECONDS:
            return
        self._last_look = now
        for leaf in jax.tree.leaves(sums):
            leaf.copy_to_host_async()
        self._pending.append((step, sums))
        finished = None
        while self._pending and self._pending[0][1].loss.is_ready():
            finished = self._pending.popleft()
        if finished is not None:
            self._show(*finished, now)

    def _show(self, step: int, sums: MetricSums, now: float) -> None:
        images, batches = int(sums.images), int(sums.batches)
        if not batches:  # all steps up to here were skipped
            return
        speed = (images - self._first_images) / max(now - self._start, 1e-9)
        figures = (
            f"{speed:,.0f} images/s, loss {float(sums.loss) / batches:.4f}, "
            f"accuracy {int(sums.correct) / images:.2%}"
        )
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(figures)
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            logger.info("%s: step %d/%d, %s", self._title, step, self._total, figures)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
