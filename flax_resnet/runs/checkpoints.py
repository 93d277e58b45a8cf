"""The checkpoints of a run: orbax writes and reads the arrays, a manifest tells which are whole.

A checkpoint is a folder, named after its step, with orbax's files and a manifest. It is written
under another name and renamed when it is complete, so that a process killed at any moment leaves
the checkpoints before it as they were. Before one is read, all its files are checked; a damaged
one is put aside and the one before it taken.

Orbax's v1 API is used: the one that takes over at its release 1.0. Its own Checkpointer, which
counts an empty folder as the newest checkpoint and checks no content, is not.
"""

import concurrent.futures
import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.process.errors import UserError
from flax_resnet.runs.manifest import Damaged, check_files, read_manifest, write_manifest

Which = Literal["last", "best"]

KEPT = 2  # the newest ones
ARRAYS = "arrays"  # orbax's folder in a checkpoint's
WRITING = "writing-"  # before the name of one that is not complete yet
DAMAGED = "damaged-"  # before the name of one that was put aside

# A zarr folder an array, and NumPy arrays given: tensorstore (0.1.71 to 0.1.86) never frees what it
# hands to Python as JSON, and orbax asks for such when it writes its common file (OCDBT), and for
# the throughput of every save of JAX arrays. A process would grow by 40 KiB a save.
_FILE_AN_ARRAY = ocp.options.ArrayOptions(saving=ocp.options.ArrayOptions.Saving(use_ocdbt=False))


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

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


@dataclasses.dataclass(frozen=True, order=True)
class Checkpoint:
    """A complete checkpoint on disk; the newest is the largest.

    Attributes:
      step: steps taken.
      evaluated, seconds: as in Saved.
      val_accuracy: fraction, ranks the best; None: never the best.
      folder: where it is.
    """

    step: int
    evaluated: bool
    seconds: float
    val_accuracy: float | None = dataclasses.field(compare=False)
    folder: Path


class Checkpoints:
    """The checkpoints of a run: the last two, and the best where there is a validation split.

    Writing goes on in the background; `wait` or `close` returns when it is done.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_best: bool,
        read_only: bool = False,
        log: Callable[[str], None] = print,
    ) -> None:
        """Opens the folder.

        Args:
          folder: made when the first checkpoint is saved.
          keep_best: keep the one of the highest validation accuracy, too.
          read_only: leave everything as it is; otherwise what a killed process left half-written
            goes, and damaged checkpoints are put aside.
          log: is told of damaged checkpoints.
        """
        _quiet_orbax()
        self._folder = folder.absolute()
        self._keep_best = keep_best
        self._read_only = read_only
        self._log = log
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: concurrent.futures.Future[None] | None = None
        if not read_only:
            for leftover in self._folder.glob(f"{WRITING}*"):
                shutil.rmtree(leftover)
        self._complete = self._find()
        self._checked: set[Checkpoint] = set()

    @property
    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None: there is none yet.

        Raises:
          UserError: there are some, and all are damaged.
        """
        while self._complete:
            newest = max(self._complete)
            if self._is_whole(newest):
                return newest
            self._complete.remove(newest)
        if any(self._folder.glob(f"{DAMAGED}*")) or self._damaged:
            raise UserError(
                f"{self._folder} holds damaged checkpoints alone: bring a copy of a whole one "
                "back, or begin anew in another --workdir"
            )
        return None

    @property
    def is_saving(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._writing is not None and not self._writing.done()

    @property
    def _ranked(self) -> list[Any]:
        """Those with a validation accuracy, the best at the end; of equals the newest."""
        ranked = [c for c in self._complete if c.val_accuracy is not None]
        return sorted(ranked, key=lambda c: (c.val_accuracy, c))

    def would_be_best(self, val_accuracy: float | None) -> bool:
        """Whether a checkpoint of this validation accuracy (None: not taken) would be the best."""
        if val_accuracy is None or not math.isfinite(val_accuracy):
            return False
        return all(c.val_accuracy < val_accuracy for c in self._ranked)

    def check_space(self, saved: Saved) -> None:
        """Checks, before any training, that checkpoints as large as `saved` find room on the disk.

        Raises:
          UserError: they do not, or the folder cannot be written.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((saved.state, saved.sums)))
        # While one is written, all that are kept are still there.
        missing = max(1, KEPT + self._keep_best + 1 - len(self._complete))
        reserved = self._folder / f"{WRITING}nothing"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                with open(reserved, "wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, missing * size)
            finally:
                reserved.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self._folder} has no room for checkpoints of {size / 2**20:,.1f} MiB "
                f"({error.strerror}): free {missing} times that, or give another --workdir"
            ) from error

    def save(self, saved: Saved, step: int, *, val_accuracy: float | None = None) -> None:
        """Begins to write a checkpoint; the arrays may be overwritten once this returns.

        Args:
          saved: what to write.
          step: `saved.state.step`, known to the host.
          val_accuracy: ranks the best; None or non-finite: never the best.

        Raises:
          UserError: the one before could not be written.
        """
        self.wait()
        ranked = val_accuracy is not None and math.isfinite(val_accuracy)
        rank = val_accuracy if ranked else None
        # A step is saved anew when the evaluation that follows it has been made good.
        name = str(step) if saved.evaluated else f"{step}-not-evaluated"
        target = Checkpoint(step, saved.evaluated, saved.seconds, rank, self._folder / name)
        part = self._folder / (WRITING + name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with ocp.Context(array_options=_FILE_AN_ARRAY):
                response = ocp.save_async(part / ARRAYS, _on_host(saved))
        except Exception as error:
            raise self._not_written(target, part, error) from error
        self._writing = self._writer.submit(self._complete_writing, response, part, target)

    def _complete_writing(self, response: Any, part: Path, target: Checkpoint) -> None:
        try:
            response.result()
            about = dataclasses.asdict(target)
            del about["folder"]
            write_manifest(part, about)
            if target.folder.exists():
                shutil.rmtree(target.folder)
            part.rename(target.folder)
        # Orbax passes on what the file system raises in many a form.
        except Exception as error:
            raise self._not_written(target, part, error) from error
        self._complete = [c for c in self._complete if c.folder != target.folder] + [target]
        self._checked.add(target)
        self._prune()

    def _not_written(self, target: Checkpoint, part: Path, error: Exception) -> UserError:
        shutil.rmtree(part, ignore_errors=True)  # whoever frees space finds all of it
        newest = max(self._complete, default=None)
        last = f"the last one is of step {newest.step}" if newest else "there is none before it"
        return UserError(
            f"the checkpoint of step {target.step} cannot be written to {self._folder} "
            f"({_reason(error)}); {last}: free space, then run the same command again"
        )

    def _prune(self) -> None:
        kept = set(sorted(self._complete)[-KEPT:])
        if self._keep_best:
            kept |= set(self._ranked[-1:])
        for old in set(self._complete) - kept:
            # Renamed first: killed in between, it is no half of a checkpoint.
            doomed = old.folder.with_name(WRITING + old.folder.name)
            old.folder.rename(doomed)
            shutil.rmtree(doomed)
            self._complete.remove(old)

    def restore(
        self, abstract: Saved, sharding: jax.sharding.Sharding, which: Which = "last"
    ) -> Saved:
        """A checkpoint, after a check of all its files.

        Args:
          abstract: shapes and dtypes, as from jax.eval_shape.
          sharding: where the arrays go.
          which: the newest ('last'), or that of the highest validation accuracy ('best').

        Raises:
          UserError: there is none that is whole, or it holds another network's arrays.
        """
        found = self.latest if which == "last" else self._best()
        if found is None:
            raise UserError(f"{self._folder} holds no {which} checkpoint yet")
        target = _with_sharding({"state": abstract.state, "sums": abstract.sums}, sharding)
        try:
            # Before orbax reads: it would leave readings unfinished, which warn at the end.
            difference = _difference(ocp.metadata(found.folder / ARRAYS).metadata, target)
            if difference:
                raise UserError(f"{found.folder} is whole, but not of this network: {difference}")
            loaded: Any = ocp.load(found.folder / ARRAYS, target)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{found.folder} is whole, but not of this network and program: {_reason(error)}"
            ) from error
        return Saved(loaded["state"], loaded["sums"], found.seconds, found.evaluated)

    def _best(self) -> Checkpoint | None:
        best = self._ranked[-1] if self._ranked else None
        if best is not None and not self._is_whole(best):
            raise UserError(f"{best.folder}, the best checkpoint, is damaged: take the last one")
        return best

    def _find(self) -> list[Checkpoint]:
        """The checkpoints whose manifests are whole."""
        self._damaged = False
        found = []
        for folder in sorted(self._folder.glob("*")):
            if not folder.is_dir() or folder.name.startswith((WRITING, DAMAGED)):
                continue
            try:
                about = read_manifest(folder)
                found.append(Checkpoint(**about, folder=folder))
            except Damaged as damage:
                self._put_aside(folder, damage)
        return found

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        if checkpoint in self._checked:
            return True
        try:
            check_files(checkpoint.folder)
        except Damaged as damage:
            self._put_aside(checkpoint.folder, damage)
            return False
        self._checked.add(checkpoint)
        return True

    def _put_aside(self, folder: Path, damage: Damaged) -> None:
        self._damaged = True
        where = folder
        if not self._read_only:
            where = folder.with_name(DAMAGED + folder.name)
            shutil.rmtree(where, ignore_errors=True)  # of an earlier time
            folder.rename(where)
        self._log(f"checkpoint {where} is damaged ({damage}): it is not used")

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
          UserError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()


def _reason(error: Exception) -> str:
    """What went wrong, short: orbax's own texts are pages long."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    # Tensorstore's texts carry the system's message.
    for code in (28, 122, 27, 30, 13):  # ENOSPC, EDQUOT, EFBIG, EROFS, EACCES
        if os.strerror(code) in text:
            return os.strerror(code)
    return text[:200] or type(error).__name__


def _on_host(saved: Saved) -> dict[str, Any]:
    """The arrays as NumPy's, copied: the device may overwrite its own."""
    arrays = jax.device_get({"state": saved.state, "sums": saved.sums})
    return jax.tree.map(np.array, arrays)


def _difference(stored: Any, expected: Any) -> str | None:
    """The first array that is not in both, or of another shape, in words."""
    have, want = _shapes(stored), _shapes(expected)
    for name in sorted(have.keys() | want.keys()):
        if name not in have:
            return f"it lacks {name}"
        if name not in want:
            return f"it has {name} besides"
        if have[name] != want[name]:
            return f"{name} has shape {have[name]}, not {want[name]}"
    return None


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each array of a state or of orbax's metadata, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _with_sharding(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _quiet_orbax() -> None:
    """Orbax logs every step of its work as a warning or an information through absl."""
    logging.getLogger("absl").setLevel(logging.ERROR)
