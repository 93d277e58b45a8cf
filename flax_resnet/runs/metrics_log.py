"""The metrics of each epoch: as JSON lines, as TensorBoard events, as a line for people."""

import contextlib
import itertools
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from flax_resnet.process.errors import UserError, reason, shortened
from flax_resnet.process.files import read_text, write_text
from flax_resnet.runs.folder import RunFolder

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# Which TensorBoard chart a field belongs to: those of one prefix stand side by side.
_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "test_views_accuracy": "accuracy/test_views",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "run/learning_rate",
    "images_per_second": "run/images_per_second",
}
_ALWAYS = (
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)


class MetricsLog:
    """metrics.jsonl of a run that resumes after `step`."""

    def __init__(self, run: RunFolder, step: int, epochs: int = 0) -> None:
        """Drops the records after `step`: their steps are about to be trained again.

        Args:
          run: the folder.
          step: of the checkpoint.
          epochs: evaluated until then; each has a record.

        Raises:
          UserError: a record is missing.
        """
        self.step = step
        self._path, self._writes = run.metrics_file, run.writes
        # A new run's process 0 may be setting the file aside while the others come here.
        exists = (run.writes or epochs > 0) and self._path.exists()
        kept = [row for row in read_metrics(self._path) if row["step"] <= step] if exists else []
        if len(kept) < epochs:
            raise UserError(
                f"{self._path} has {len(kept)} epochs, but the checkpoint was saved after "
                f"{epochs}: restore the file, or start a new run from the weights "
                f"(--config.init_from={run.path} --workdir OTHER)",
                code="corrupt",
                field=str(self._path),
            )
        if exists and run.writes:
            write_text(self._path, "".join(_line(row) for row in kept))

    def append(self, row: Row) -> None:
        """Adds an epoch; it is on disk when this returns.

        Raises:
          UserError: it cannot be written.
        """
        if not self._writes:
            return
        try:
            with open(self._path, "a") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written: {error.strerror}",
                code="unwritable",
                field=str(self._path),
            ) from error


class Events:
    """TensorBoard events, written without TensorFlow.

    And without tensorboardX's thread, which ends where the disk is full for a moment: the events
    after that would wait for it for ever.
    """

    def __init__(self, run: RunFolder, step: int) -> None:
        """Continues after `step`: TensorBoard hides what an earlier process wrote beyond it."""
        self._folder = run.tensorboard
        self._step = step
        self._writer: Any = None

    def add(self, row: Row) -> None:
        """Adds an epoch.

        Raises:
          OSError: it cannot be written.
        """
        # Imported here: it takes a second or two where PyTorch is installed.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        now = time.time()
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=now, step=self._step + 1, session_log=start))
        for field, tag in _TAGS.items():
            if row.get(field) is not None:
                value = scalar(tag, row[field])
                self._writer.write_event(Event(wall_time=now, step=row["step"], summary=value))
        self._writer.flush()

    def close(self) -> None:
        """Ends the writer."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk: metrics.jsonl has every metric
                self._writer.close()


def describe_row(row: Row, num_epochs: int | None = None) -> str:
    """The metrics of an epoch in one line."""

    def metrics(name: str) -> str:
        loss, accuracy = row[f"{name}_loss"], row[f"{name}_accuracy"]
        return f"{name} {'nan' if loss is None else f'{loss:.4f}'} {accuracy:.2%}"

    total = f"/{num_epochs}" if num_epochs else ""
    sets = "   ".join(metrics(name) for name in ("train", "val", "test") if f"{name}_loss" in row)
    if "test_views_accuracy" in row:
        sets += f" ({row['test_views_accuracy']:.2%} with views)"
    skipped = f"   {row['skipped_steps']} steps skipped" if row.get("skipped_steps") else ""
    return (
        f"epoch {row['epoch']}{total}   {sets}   lr {row['learning_rate']:.3g}   "
        f"{row['seconds']:.1f} s   {row['images_per_second']:,.0f} images/s{skipped}"
    )


def _line(row: Row) -> str:
    return json.dumps({key: _finite(value) for key, value in row.items()}) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line cut short by a crash is left out.

    Raises:
      UserError: the file cannot be read, or a line is corrupt; it is named.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {reason(error)}", code="unreadable", field=str(path)
        ) from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise _corrupt(path, number, "not a metrics record") from error
        problem = _problem(row, rows[-1]["epoch"] if rows else 0)
        if problem:
            raise _corrupt(path, number, problem)
        rows.append(row)
    return rows


def read_epochs(run: RunFolder) -> list[Row]:
    """The epochs of a run; [] if it has none yet.

    Raises:
      UserError: as read_metrics.
    """
    return read_metrics(run.metrics_file) if run.metrics_file.exists() else []


def set_aside(run: RunFolder) -> None:
    """Renames the records of a run that starts over, for want of a checkpoint.

    Raises:
      UserError: as read_metrics, or the folder cannot be written.
    """
    epochs = len(read_epochs(run)) if run.writes else 0
    if not epochs:
        return
    names = (run.path / f"metrics.{number}.jsonl" for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    try:
        os.rename(run.metrics_file, kept)
    except OSError as error:
        raise UserError(
            f"{run.metrics_file} cannot be renamed: {error.strerror}",
            code="unwritable",
            field=str(run.metrics_file),
        ) from error
    logger.warning(
        "note: %s has no checkpoint, so the run starts over; the metrics that were there (epochs: "
        "%d) are kept in %s",
        run.path,
        epochs,
        kept.name,
    )


def _corrupt(path: Path, number: int, problem: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {problem}; remove the line", code="corrupt", field=str(path)
    )


def _problem(row: Any, previous_epoch: int) -> str | None:
    """What plots and console could not take of a row; a loss that was not finite is None."""
    if not isinstance(row, dict):
        return "not a metrics record"
    curves = [name for name in row if name.endswith(("_loss", "_accuracy"))]
    for name in ("epoch", "step", *_ALWAYS, *curves):
        value = row.get(name)
        if value is None and name.endswith("_loss") and name in row:
            continue
        if not _is_metric(value, 1.0 if name.endswith("_accuracy") else 1e300):
            return f"{name} is {shortened(repr(value), 60)}, which it cannot be"
    for name, previous in (("epoch", previous_epoch), ("step", 0)):
        if not isinstance(row[name], int) or row[name] <= previous:
            return f"{name} is {row[name]}: it must be an integer above {previous}"
    return None


def _is_metric(value: Any, high: float) -> bool:
    """Whether it is a number from 0 to `high` (True and False are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high
