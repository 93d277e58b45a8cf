"""Saving and restoring a run with orbax, all in one place because its API is on the move.

Orbax's v1 API is used: the one that takes over at its release 1.0.
"""

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import jax
from orbax.checkpoint import v1 as ocp

from flax_resnet.errors import UserError
from flax_resnet.train_state import MetricSums, TrainState

Which = Literal["last", "best"]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint.

    Attributes:
      state: the training state.
      sums: metric sums over the steps of the running epoch.
      seconds: training time of the running epoch up to here.
      evaluated: the epoch that ends at this step has been evaluated and logged.
    """

    state: TrainState
    sums: MetricSums
    seconds: float
    evaluated: bool


class Checkpoints:
    """The checkpoints of a run: the last two, and the best where there is a validation split.

    Writing goes on in the background; `wait` or `close` returns when it is done.
    """

    def __init__(self, folder: Path, *, keep_best: bool, read_only: bool = False) -> None:
        """Opens the folder; without `read_only`, what a killed process left half-written goes."""
        _quiet_orbax()
        if not read_only:
            # Not left to orbax: its background thread for this dies noisily when an error ends the
            # program at once.
            for leftover in folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover)
        policies = ocp.training.preservation_policies
        keep: Any = policies.LatestN(2)
        if keep_best:
            best = policies.BestN(get_metric_fn=lambda metrics: metrics["val_accuracy"], n=1)
            keep = policies.AnyPreservationPolicy([keep, best])
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(), preservation_policy=keep, cleanup_tmp_directories=False
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None: there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def latest_is_evaluated(self) -> bool:
        """Whether the newest checkpoint's `evaluated` is set; True where there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return True
        return self._checkpointer.metadata(latest).custom_metadata["evaluated"]

    @property
    def is_saving(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._checkpointer.is_saving_in_progress()

    def would_be_best(self, val_accuracy: float | None) -> bool:
        """Whether a checkpoint of this validation accuracy (None: not taken) would be the best."""
        if val_accuracy is None or not math.isfinite(val_accuracy):
            return False
        return all(c.metrics["val_accuracy"] < val_accuracy for c in self._checkpointer.checkpoints)

    def save(self, saved: Saved, step: int, *, val_accuracy: float | None = None) -> None:
        """Begins to write a checkpoint; the arrays may be overwritten once this returns.

        Args:
          saved: what to write.
          step: `saved.state.step`, known to the host.
          val_accuracy: ranks the best; None or non-finite: never the best.
        """
        self.wait()  # overwrite=True would delete a save of this step that is still under way
        usable = val_accuracy is not None and math.isfinite(val_accuracy)
        self._checkpointer.save_async(
            step,
            {"state": saved.state, "sums": saved.sums},
            # A step is saved anew when the evaluation that follows it has been made good.
            overwrite=True,
            # BestN takes NaN for the best there is; minus infinity is never kept for its rank.
            metrics={"val_accuracy": val_accuracy if usable else -math.inf},
            custom_metadata={"seconds": saved.seconds, "evaluated": saved.evaluated},
        )

    def restore(
        self, abstract: Saved, sharding: jax.sharding.Sharding, which: Which = "last"
    ) -> Saved:
        """A checkpoint.

        Args:
          abstract: shapes and dtypes, as from jax.eval_shape.
          sharding: where the arrays go.
          which: the newest ('last'), or that of the highest validation accuracy ('best').

        Raises:
          UserError: there is none.
        """
        found = self._find(which)
        if found is None:
            raise UserError(f"{self._checkpointer.directory} holds no {which} checkpoint yet")
        target = {"state": abstract.state, "sums": abstract.sums}
        loaded = self._checkpointer.load(found, _with_sharding(target, sharding))
        metadata = self._checkpointer.metadata(found).custom_metadata
        return Saved(loaded["state"], loaded["sums"], metadata["seconds"], metadata["evaluated"])

    def _find(self, which: Which) -> Any:
        if which == "last":
            return self._checkpointer.latest
        ranked = [c for c in self._checkpointer.checkpoints if c.metrics["val_accuracy"] >= 0]
        return max(ranked, key=lambda c: c.metrics["val_accuracy"], default=None)

    def wait(self) -> None:
        """Returns when everything begun is on disk; raises what went wrong."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, and ends the background threads."""
        self._checkpointer.close()


def _with_sharding(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _quiet_orbax() -> None:
    """Orbax logs every step of its work as a warning or an information through absl."""
    logging.getLogger("absl").setLevel(logging.ERROR)
