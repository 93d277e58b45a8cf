"""A line of figures an epoch, as JSON lines and as TensorBoard events without TensorFlow."""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from flax_resnet.process.errors import UserError, reason, shortened
from flax_resnet.process.files import write_text
from flax_resnet.runs.folder import RunFolder

Row = dict[str, Any]

# Which TensorBoard chart a field belongs to: those of one prefix stand side by side.
_TAGS = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "val_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
    "val_accuracy": "accuracy/validation",
    "learning_rate": "run/learning_rate",
    "images_per_second": "run/images_per_second",
}


_FIGURES = (
    "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    "learning_rate", "seconds", "images_per_second",
)  # fmt: skip


class MetricsLog:
    """metrics.jsonl and tensorboard/ of a run that goes on after `step`."""

    def __init__(self, run: RunFolder, step: int) -> None:
        """Drops the lines after `step`: their steps are about to be trained again."""
        self._path = run.metrics_file
        if self._path.exists():
            kept = [row for row in read_metrics(self._path) if row["step"] <= step]
            write_text(self._path, "".join(_line(row) for row in kept))
        self._tensorboard = run.tensorboard
        self._step = step
        self._writer: Any = None

    def append(self, row: Row) -> None:
        """Adds an epoch to metrics.jsonl; it is on disk when this returns."""
        try:
            with open(self._path, "a") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from error

    def add_events(self, row: Row) -> None:
        """Adds an epoch to the TensorBoard events.

        Raises:
          UserError: they cannot be written.
        """
        try:
            if self._writer is None:
                # Imported here: it takes a second or two where PyTorch is installed.
                from tensorboardX import SummaryWriter

                self._writer = SummaryWriter(
                    str(self._tensorboard), purge_step=self._step + 1, flush_secs=10
                )
            for field, tag in _TAGS.items():
                if row.get(field) is not None:
                    self._writer.add_scalar(tag, row[field], row["step"])
            self._writer.flush()
        except OSError as error:
            raise UserError(f"{self._tensorboard} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Ends the TensorBoard writer."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk: metrics.jsonl has every figure
                self._writer.close()


def _line(row: Row) -> str:
    return json.dumps({key: _finite(value) for key, value in row.items()}) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line cut short by a crash is left out.

    Raises:
      UserError: the file cannot be read, or a line is damaged; it is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{where}: not a line of figures; remove it") from error
        _check_row(row, rows[-1]["epoch"] if rows else 0, where)
        rows.append(row)
    return rows


def _check_row(row: Any, previous_epoch: int, where: str) -> None:
    """Checks what the plots and the console rely on; a loss that was not finite is None."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a line of figures; remove it")
    curves = [name for name in row if name.endswith(("_loss", "_accuracy"))]
    for name in ("epoch", "step", *_FIGURES, *curves):
        value = row.get(name)
        if value is None and name.endswith("_loss") and name in row:
            continue
        if not _is_figure(value, 1.0 if name.endswith("_accuracy") else 1e300):
            shown = shortened(repr(value), 60)
            raise UserError(f"{where}: {name} is {shown}, no such figure; remove the line")
    for name, previous in (("epoch", previous_epoch), ("step", 0)):
        if not isinstance(row[name], int) or row[name] <= previous:
            raise UserError(
                f"{where}: {name} is {row[name]}: it must be a whole number above {previous}; "
                "remove the line"
            )


def _is_figure(value: Any, high: float) -> bool:
    """Whether it is a number from 0 to `high` (True and False are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high
