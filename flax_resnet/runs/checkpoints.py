"""The checkpoints of a run: which are kept, which are complete, which is taken.

A checkpoint is a folder named after its step, with orbax's files and a manifest. It is written
under another name and renamed when it is complete, so that a process killed at any moment leaves
the checkpoints before it as they were. Before one is read, all its files are checked; a corrupt
one is put aside and the one before it taken. Orbax's own Checkpointer, which counts an empty folder
as the newest checkpoint and checks no content, is not used.
"""

import concurrent.futures
import dataclasses
import errno
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import jax

from flax_resnet.config.fields import FORMAT
from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.process.errors import UserError
from flax_resnet.runs import storage
from flax_resnet.runs.manifest import Damaged, check_files, read_manifest, write_manifest

logger = logging.getLogger(__name__)

Which = Literal["last", "best"]

KEPT = 2  # the newest ones
START = 0, True  # the place of a run that has none
ARRAYS = "arrays"  # orbax's folder in a checkpoint's
WRITING = "writing-"  # before the name of one that is not complete yet
CORRUPT = "damaged-"  # before the name of one that was put aside
_NAME = re.compile(r"\d+(-not-evaluated)?")


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
      state: the training state.
      sums: metric sums over the steps of the running epoch.
      seconds: training time of the running epoch so far.
      evaluated: the epoch that ends at this step has been evaluated and logged.
    """

    state: TrainState
    sums: MetricSums
    seconds: float
    evaluated: bool

    @property
    def arrays(self) -> dict[str, Any]:
        """The tree that is written."""
        return {"state": self.state, "sums": self.sums}


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

    @property
    def place(self) -> tuple[int, bool]:
        """Where the run stood."""
        return self.step, self.evaluated


class Checkpoints:
    """The checkpoints of a run: the last two, and the best where there is a validation split.

    Writing goes on in the background; `wait` or `close` returns when it is done.
    """

    def __init__(self, folder: Path, *, keep_best: bool, read_only: bool = False) -> None:
        """Opens the folder.

        Args:
          folder: made when the first checkpoint is saved.
          keep_best: keep the one of the highest validation accuracy, too.
          read_only: leave everything as it is, as all processes of a run but one do: `save` only
            has orbax write what this process holds. Otherwise what a killed process left
            half-written is removed, and corrupt checkpoints are put aside.
        """
        self._folder = folder.absolute()
        self._keep_best = keep_best
        self._read_only = read_only
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: concurrent.futures.Future[None] | None = None
        if not read_only:
            for leftover in self._folder.glob(f"{WRITING}*"):
                _remove(leftover)
        self._found_corrupt = False
        # Replaced, never changed in place: the writer's thread and the main one both read it.
        self._complete: tuple[Checkpoint, ...] = tuple(self._find())
        self._checked: set[Checkpoint] = set()

    @property
    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is intact; None: there is none yet.

        Raises:
          UserError: there are some, and all are corrupt.
        """
        while self._complete:
            newest = max(self._complete)
            if self._is_intact(newest):
                return newest
            if not self._look_again(newest):
                self._complete = tuple(c for c in self._complete if c != newest)
        if any(self._folder.glob(f"{CORRUPT}*")) or self._found_corrupt:
            raise UserError(
                f"every checkpoint in {self._folder} is corrupt: restore one from a backup, or "
                "start over in another --workdir",
                code="corrupt",
                field=str(self._folder),
            )
        return None

    @property
    def place(self) -> tuple[int, bool]:
        """(step, evaluated) of the newest checkpoint that is intact; START: there is none."""
        return START if self.latest is None else self.latest.place

    def go_back(self, place: tuple[int, bool]) -> None:
        """Removes what is newer than a place's checkpoint, if that is still there."""
        newer = [c for c in self._complete if c.place > place]
        older = [c for c in self._complete if c.place <= place]
        if any(c.place == place for c in older) or (place == START and len(newer) == 1):
            self._complete = tuple(older)
            for checkpoint in newer:
                self._remove(checkpoint)

    @property
    def is_saving(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._writing is not None and not self._writing.done()

    def would_be_best(self, val_accuracy: float | None) -> bool:
        """Whether a checkpoint of this validation accuracy (None: not taken) would be the best.

        Of equals the newest is.
        """
        if val_accuracy is None or not math.isfinite(val_accuracy):
            return False
        best = self._best()
        return best is None or (best.val_accuracy or 0.0) <= val_accuracy

    def check_space(self, saved: Saved) -> None:
        """Checks, before any training, that checkpoints as large as `saved` fit on the disk.

        Raises:
          UserError: they do not, or the folder cannot be written.
        """
        if self._read_only:
            return
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(saved.arrays))
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
            problem = f"cannot be written ({error.strerror}): choose another --workdir"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                problem = (
                    f"has no room for checkpoints of {size / 2**20:,.1f} MiB ({error.strerror}): "
                    f"free {missing} times that, or choose another --workdir"
                )
            raise UserError(
                f"{self._folder} {problem}",
                code="unwritable",
                field=str(self._folder),
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
        # A step is saved again once the evaluation that follows it is done.
        name = str(step) if saved.evaluated else f"{step}-not-evaluated"
        target = Checkpoint(
            step,
            saved.evaluated,
            saved.seconds,
            val_accuracy if ranked else None,
            self._folder / name,
        )
        part = self._folder / (WRITING + name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            response = storage.begin_writing(part / ARRAYS, saved.arrays)
        except Exception as error:
            raise self._not_written(target, part, error) from error
        self._writing = self._writer.submit(self._complete_writing, response, part, target)

    def _complete_writing(self, response: Any, part: Path, target: Checkpoint) -> None:
        try:
            with storage.quiet():
                response.result()  # what all processes write
            if not self._read_only:
                about = dataclasses.asdict(target) | {"format": FORMAT}
                del about["folder"]
                write_manifest(part, about)
                if target.folder.exists():
                    shutil.rmtree(target.folder)
                part.rename(target.folder)
        # Orbax passes on what the file system raises in many forms.
        except Exception as error:
            raise self._not_written(target, part, error) from error
        others = (c for c in self._complete if c.folder != target.folder)
        self._complete = (*others, target)
        self._checked.add(target)
        self._prune()

    def _not_written(self, target: Checkpoint, part: Path, error: Exception) -> UserError:
        if not self._read_only:
            shutil.rmtree(part, ignore_errors=True)  # whoever frees space finds all of it
        newest = max(self._complete, default=None)
        last = f"the last one is of step {newest.step}" if newest else "there is none before it"
        return UserError(
            f"the checkpoint of step {target.step} cannot be written to {self._folder} "
            f"({storage.why(error)}); {last}. Once that is fixed, run the same command again",
            code="unwritable",
            field=str(self._folder),
        )

    def _prune(self) -> None:
        best = self._best() if self._keep_best else None
        kept = {*sorted(self._complete)[-KEPT:], best}
        for old in self._complete:
            if old not in kept:
                self._remove(old)
        self._complete = tuple(c for c in self._complete if c in kept)

    def _remove(self, checkpoint: Checkpoint) -> None:
        # Renamed first: a kill in between leaves no half of a checkpoint.
        doomed = checkpoint.folder.with_name(WRITING + checkpoint.folder.name)
        if checkpoint.folder.exists() and not self._read_only:  # else removed by hand
            checkpoint.folder.rename(doomed)
            _remove(doomed)

    def restore(self, expected: Saved, sharding: jax.sharding.Sharding) -> Saved:
        """The newest checkpoint, after a check of all its files.

        Args:
          expected: shapes and dtypes, as from jax.eval_shape.
          sharding: where the arrays go.

        Raises:
          UserError: there is none that is intact, or it holds another network's arrays.
        """
        found = self._taken("last")
        arrays = self._read(found, expected.arrays, sharding)
        return Saved(arrays["state"], arrays["sums"], found.seconds, found.evaluated)

    def restore_variables(
        self, expected: Any, sharding: jax.sharding.Sharding, which: Which = "last"
    ) -> tuple[Any, int]:
        """Weights and BatchNorm statistics alone: no matter with which optimizer they were trained.

        Args:
          expected: {'params', 'batch_stats'} or another part of the state, shapes and dtypes.
          sharding: where the arrays go.
          which: the newest, or that of the highest validation accuracy.

        Returns:
          The arrays and the step they are of.

        Raises:
          UserError: as `restore`.
        """
        while True:
            found = self._taken(which)
            try:
                arrays = self._read(found, {"state": dict(expected)}, sharding, part=True)
            except UserError:
                if self._look_again(found):
                    continue
                raise
            return arrays["state"], found.step

    def _read(
        self,
        found: Checkpoint,
        expected: Any,
        sharding: jax.sharding.Sharding,
        part: bool = False,
    ) -> Any:
        try:
            return storage.read(found.folder / ARRAYS, expected, sharding, part=part)
        except KeyError as error:
            raise UserError(
                f"{found.folder} is intact, but holds another network's arrays: {error.args[0]}",
                code="conflict",
                field=str(found.folder),
            ) from error
        except jax.errors.JaxRuntimeError:  # no memory left on the device
            raise
        except Exception as error:
            raise UserError(
                f"{found.folder} cannot be read: {storage.why(error)}",
                code="unreadable",
                field=str(found.folder),
            ) from error

    def _look_again(self, checkpoint: Checkpoint) -> bool:
        """Whether a reader's checkpoint is gone, as the run has saved since; then lists anew."""
        gone = self._read_only and not checkpoint.folder.exists()
        if gone:
            self._complete = tuple(self._find())
        return gone

    def _taken(self, which: Which) -> Checkpoint:
        found = self.latest if which == "last" else self._best()
        if found is None:
            raise UserError(
                f"{self._folder} has no {which} checkpoint yet",
                code="missing",
                field=str(self._folder),
            )
        if not self._is_intact(found):
            raise UserError(
                f"{found.folder}, the best checkpoint, is corrupt: use the last one",
                code="corrupt",
                field=str(found.folder),
            )
        return found

    def _best(self) -> Checkpoint | None:
        """The highest validation accuracy; of equals the newest."""
        ranked = [c for c in self._complete if c.val_accuracy is not None]
        return max(ranked, key=lambda c: (c.val_accuracy, c), default=None)

    def _find(self) -> list[Checkpoint]:
        """The checkpoints whose manifests are intact; names that are not ours are passed over."""
        found = []
        for folder in sorted(self._folder.glob("*")):
            if not folder.is_dir() or not _NAME.fullmatch(folder.name):
                continue
            try:
                found.append(_checkpoint(folder, read_manifest(folder)))
            except Damaged as damage:
                if folder.exists():  # else it is of a run that has saved since
                    self._put_aside(folder, damage)
        return found

    def _is_intact(self, checkpoint: Checkpoint) -> bool:
        if checkpoint in self._checked:
            return True
        try:
            check_files(checkpoint.folder)
        except Damaged as damage:
            if checkpoint.folder.exists():  # as in _find
                self._put_aside(checkpoint.folder, damage)
            return False
        self._checked.add(checkpoint)
        return True

    def _put_aside(self, folder: Path, damage: Damaged) -> None:
        self._found_corrupt = True
        where = folder
        if not self._read_only:
            where = folder.with_name(CORRUPT + folder.name)
            shutil.rmtree(where, ignore_errors=True)  # of an earlier time
            folder.rename(where)
        logger.warning("checkpoint %s is corrupt (%s): it is not used", where, damage)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Waits for what is being saved; after a second Ctrl-C for nothing."""
        if error_type is None or not issubclass(error_type, KeyboardInterrupt):
            self.close()

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


def _checkpoint(folder: Path, about: dict[str, Any]) -> Checkpoint:
    """What a manifest says of a checkpoint; fields that this version does not know are ignored.

    Raises:
      Damaged: a field is missing or of another type.
      UserError: a newer version wrote it in another format.
    """
    if about.get("format", 1) > FORMAT:
        raise UserError(
            f"{folder} is of format {about['format']}, and this version of flax_resnet reads "
            f"formats up to {FORMAT}: upgrade it",
            code="unknown",
            field=str(folder),
        )
    try:
        return Checkpoint(
            int(about["step"]),
            bool(about["evaluated"]),
            float(about["seconds"]),
            about.get("val_accuracy"),
            folder,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"its manifest lacks {error}") from error


def _remove(path: Path) -> None:
    """Removes a folder, or the file that a killed check of the disk's space left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
