"""Runs to compare with: the authors' own log, or another in its form."""

import csv
import dataclasses
import math
from pathlib import Path

from flax_resnet.process.errors import UserError, shortened
from flax_resnet.process.files import open_regular
from flax_resnet.runs.metrics_log import Row

PAPER = "paper"  # the reference_log that stands for the authors' own run
PAPER_LOG = Path(__file__).with_name("paper_run.csv")
REFERENCE_COLUMNS = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclasses.dataclass(frozen=True)
class Reference:
    """A run drawn behind another.

    Attributes:
      name: of the run, for the legend.
      rows: as read_metrics gives them; accuracies are fractions.
    """

    name: str
    rows: list[Row]


def read_reference(reference_log: str) -> Reference:
    """Reads a run to compare with.

    Args:
      reference_log: 'paper' for the authors' own run, or the path of a CSV file with the same
        columns as paper_run.csv: a line an epoch, accuracies in percent.

    Raises:
      UserError: the file is missing or broken; names it, the line and what is wrong.
    """
    path = PAPER_LOG if reference_log == PAPER else Path(reference_log)
    where = f"reference_log {path}"
    try:
        with open_regular(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in REFERENCE_COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{where}: its first line names no column {missing[0]!r}; "
                    f"it must name {', '.join(REFERENCE_COLUMNS)}"
                )
            rows: list[Row] = []
            for line in lines:
                previous = rows[-1]["epoch"] if rows else 0
                rows.append(_reference_row(line, previous, f"{where}, line {lines.line_num}"))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where} is not a CSV file: {error}") from error
    if not rows:
        raise UserError(f"{where} has no epochs")
    best = max(max(row["train_accuracy"], row["test_accuracy"]) for row in rows)
    if best <= 0.01:
        raise UserError(
            f"{where}: its highest accuracy is {best:.2%}; "
            "accuracies must be in percent, as in 90.84"
        )
    return Reference(PAPER if reference_log == PAPER else path.stem, rows)


def _reference_row(line: dict[str, str | None], previous_epoch: int, where: str) -> Row:
    row: Row = {}
    for name in REFERENCE_COLUMNS:
        text = line[name]
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e300:  # a NaN fails, too; matplotlib overflows beyond
            raise UserError(
                f"{where}: {name} is {shortened(repr(text), 60)}: it must be a number from 0 on"
            )
        if name.endswith("_accuracy"):
            if value > 100:
                raise UserError(f"{where}: {name} is {text!r}: it must be a percentage, 0 to 100")
            value /= 100
        row[name] = value
    if row["epoch"] != int(row["epoch"]) or row["epoch"] <= previous_epoch:
        raise UserError(
            f"{where}: epoch is {line['epoch']!r}: it must be a whole number above {previous_epoch}"
        )
    return row | {"epoch": int(row["epoch"])}
