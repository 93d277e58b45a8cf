"""Curves of loss and accuracy, drawn from the files of runs."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from flax_resnet.plots.style import (
    COLORS,
    DASHES,
    DPI,
    FONT,
    GREY,
    MARKERS,
    save_figure,
    set_labels,
    short_name,
    style_axes,
)
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_epochs
from flax_resnet.runs.reference_log import Reference, read_reference

logger = logging.getLogger(__name__)

FORMATS = (".png", ".svg", ".pdf")

_MARKED_POINTS = 12  # about as many markers on a longer line
_LOGARITHMIC_FROM = 10  # ratio of the longest run's time to the shortest's
_TITLE_LENGTH = 60  # characters that fit above one run's figure; a longer title is set smaller


@dataclasses.dataclass(frozen=True)
class Measure:
    """A metric and its axis.

    Attributes:
      field: its name in a row, without the split: train_`field`, test_`field`.
      axis: the axis label, with the unit.
      scale: factor from the rows' unit to the axis unit.
      wording: format of a value in the axis unit.
    """

    field: str
    axis: str
    scale: float
    wording: str

    def in_words(self, value: float | None) -> str:
        """A row's value as text; None: it was not finite."""
        if value is None:
            return "not finite"
        scaled = value * self.scale
        return self.wording.format(scaled) if scaled < 1e4 else f"{scaled:.3g}"


Against = Literal["epoch", "time"]

LOSS = Measure("loss", "cross-entropy loss", 1.0, "{:.4f}")
ACCURACY = Measure("accuracy", "accuracy (%)", 100.0, "{:.2f}%")


def draw_run(run: RunFolder, reference_log: str | None) -> list[Path]:
    """Writes loss.png and accuracy.png into the folder of a run, titled with the folder's name.

    Args:
      run: with at least one epoch in its metrics file.
      reference_log: a run to draw in gray, as for read_reference; None: none.

    Returns:
      The two files.

    Raises:
      UserError: not a run, no epoch yet, a bad reference log, or a figure cannot be written.
    """
    config, rows = run.config(), read_epochs(run)
    if not rows:
        raise _no_epoch(str(run.path))
    reference = None if reference_log is None else read_reference(reference_log)
    title = f"{short_name(run.path.absolute().name)} on {_dataset(config.dataset)}"
    paths = []
    for measure in (LOSS, ACCURACY):
        path = run.path / f"{measure.field}.png"
        value = measure.in_words(rows[-1].get(f"test_{measure.field}"))
        last = f"test {measure.field} {value} after epoch {rows[-1]['epoch']}"
        figure = run_figure(measure, rows, f"{title}\n{last}", config.num_epochs, reference)
        save_figure(figure, path)
        paths.append(path)
    return paths


def draw_comparison(runs: Sequence[RunFolder], output: Path, against: Against = "epoch") -> Path:
    """Writes one figure of several runs, loss on the left, accuracy on the right.

    Runs without an epoch are left out with a warning.

    Args:
      runs: at least one of them with an epoch.
      output: the figure, .png, .svg or .pdf.
      against: the horizontal axis: the epoch, or the time that training took until then.

    Returns:
      The file.

    Raises:
      UserError: not a run, a run given twice, no epoch in any, an unknown format, or the figure
        cannot be written.
    """
    check_format(output)
    names = distinguishing_names([run.path for run in runs])
    datasets = {_dataset(run.config().dataset) for run in runs}
    drawn = {}
    for name, run in zip(names, runs, strict=True):
        if rows := read_epochs(run):
            drawn[name] = rows
        else:
            logger.warning("%s has no epoch yet and is left out", run.path)
    if not drawn:
        raise _no_epoch(", ".join(str(run.path) for run in runs))
    title = f"{len(drawn)} runs" if len(drawn) > 1 else short_name(next(iter(drawn)), 60)
    if len(datasets) == 1:
        title += f" on {datasets.pop()}"
    save_figure(comparison_figure(drawn, title, against=against), output)
    return output


def check_format(output: Path) -> None:
    """Checks that a figure's suffix is a known format.

    Raises:
      UserError: it is not.
    """
    if output.suffix.lower() not in FORMATS:
        raise UserError(
            f"{output}: a figure's name must end in {', '.join(FORMATS)}", field=str(output)
        )


def _no_epoch(paths: str) -> UserError:
    return UserError(f"{paths}: no epoch yet, so nothing to draw", code="missing", field=paths)


def run_figure(
    measure: Measure,
    rows: Sequence[Row],
    title: str,
    num_epochs: int,
    reference: Reference | None = None,
) -> Figure:
    """One metric of one run: training, test and, where there is one, validation split.

    Args:
      measure: LOSS or ACCURACY.
      rows: the epochs of the run, at least one.
      title: one or two lines.
      num_epochs: of the whole run.
      reference: drawn in gray, up to the last epoch of the run.
    """
    figure = Figure(figsize=(6.4, 4.3), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.12, right=0.975, bottom=0.135, top=0.87)
    axes = figure.add_subplot()
    last_epoch = rows[-1]["epoch"]
    lines, labels = [], []
    for name, label, color, marker in (
        ("train", "train", COLORS[0], "s"),
        ("val", "validation", COLORS[2], "^"),
        ("test", "test", COLORS[1], "o"),
    ):
        if any(f"{name}_{measure.field}" in row for row in rows):
            lines.append(_add_line(axes, rows, name, measure, color, marker))
            labels.append(label)
    if reference is not None:
        end = max(num_epochs, last_epoch)
        ahead = [row for row in reference.rows if row["epoch"] <= end]
        last_epoch = max([last_epoch, *(row["epoch"] for row in ahead)])
        for name in ("train", "test"):
            lines.append(_add_line(axes, ahead, name, measure, GREY, ".", thin=True))
            labels.append(f"{short_name(reference.name)}, {name}")
    _finish_axes(axes, measure, last_epoch)
    legend = axes.legend(
        lines,
        [""] * len(lines),
        loc=_legend_corner(axes, "upper right" if measure is LOSS else "lower right"),
        fontsize=FONT - 1,
        framealpha=0.9,
        handlelength=3,
    )
    set_labels(legend, labels)
    fitting = min(1.0, _TITLE_LENGTH / max(map(len, title.splitlines())))
    axes.set_title(title, fontsize=FONT * fitting, loc="left", parse_math=False)
    return figure


def comparison_figure(
    runs: Mapping[str, Sequence[Row]],
    title: str,
    measures: Sequence[Measure] = (LOSS, ACCURACY),
    against: Against = "epoch",
) -> Figure:
    """Loss and accuracy of several runs side by side, a color and a marker for each.

    Args:
      runs: name for the legend -> epochs, at least one each.
      title: of the figure.
      measures: one for each half, or for the whole of a narrower figure.
      against: as for draw_comparison.
    """
    width = 11 if len(measures) > 1 else 6.4
    labels = [*(short_name(name, 60) for name in runs), "test", "train"]
    columns = max(1, min(len(labels), int(10 * width) // (max(map(len, labels)) + 8)))
    height = 4.4 + 0.25 * math.ceil(len(labels) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(grid, measures, strict=True):
        for i, rows in enumerate(runs.values()):
            color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
            x = None if against == "epoch" else _minutes(rows)
            _add_line(axes, rows, "train", measure, color, marker, thin=True, x=x)
            _add_line(axes, rows, "test", measure, color, marker, x=x)
        if against == "epoch":
            _finish_axes(axes, measure, max(rows[-1]["epoch"] for rows in runs.values()))
        else:
            _finish_time(axes, [_minutes(rows)[-1] for rows in runs.values()])
            _finish_vertical(axes, measure, "training time (min)")
    lines = [
        Line2D([], [], color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)], lw=1.8)
        for i in range(len(runs))
    ]
    lines.append(Line2D([], [], color=GREY, lw=1.8))
    lines.append(Line2D([], [], color=GREY, lw=1.2, linestyle=DASHES["train"]))
    legend = figure.legend(
        lines,
        [""] * len(lines),
        loc="outside lower center",
        ncols=columns,
        fontsize=FONT - 1,
        frameon=False,
        handlelength=3,
    )
    set_labels(legend, labels)
    figure.suptitle(title, fontsize=FONT + 1, parse_math=False)
    return figure


def distinguishing_names(paths: Sequence[Path]) -> list[str]:
    """The shortest distinct ends of paths: runs/a/seed0 and runs/b/seed0 -> a/seed0, b/seed0.

    Raises:
      UserError: two paths are the same.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    names = []
    for i, own in enumerate(parts):
        others = parts[:i] + parts[i + 1 :]
        if own in others:
            raise UserError(f"{paths[i]} is given twice", code="conflict", field=str(paths[i]))
        length = 1
        while any(own[-length:] == other[-length:] for other in others):
            length += 1
        names.append(str(Path(*own[-length:])))
    return names


def _add_line(
    axes: Axes,
    rows: Sequence[Row],
    name: str,
    measure: Measure,
    color: str,
    marker: str,
    thin: bool = False,
    x: Sequence[float] | None = None,
) -> Line2D:
    """Draws a metric of the rows; a value that was not finite leaves a gap.

    `x` is where, by row; None: their epochs.
    """
    raw = [row.get(f"{name}_{measure.field}") for row in rows]
    values = np.array([math.nan if v is None else v * measure.scale for v in raw])
    # A point between two gaps has no line, so it always gets a marker.
    gap = np.isnan(np.concatenate([[math.nan], values, [math.nan]]))
    marked = gap[:-2] & gap[2:]
    if not thin:
        marked[:: math.ceil(len(values) / _MARKED_POINTS)] = True
        marked[-1] = True
    (line,) = axes.plot(
        [row["epoch"] for row in rows] if x is None else x,
        values,
        color=color,
        linestyle=DASHES[name],
        linewidth=1.2 if thin else 1.8,
        marker=marker if marked.any() else "None",
        markersize=3 if thin else 5.5,
        markevery=np.flatnonzero(marked).tolist(),
        zorder=2.5 if thin else 3,
        label=f"{name}_{measure.field}",
    )
    return line


def _finish_axes(axes: Axes, measure: Measure, last_epoch: int) -> None:
    """Sets ranges, ticks, labels and grid, once the lines are drawn."""
    if last_epoch == 1:
        axes.set_xlim(0.5, 1.5)
    else:
        margin = 0.025 * (last_epoch - 1)
        axes.set_xlim(0 if last_epoch > 10 else 1 - margin, last_epoch + margin)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    _finish_vertical(axes, measure, "epoch")


def _minutes(rows: Sequence[Row]) -> list[float]:
    """The time that training took up to the end of each epoch."""
    return [float(m) for m in np.cumsum([row["seconds"] for row in rows]) / 60]


def _finish_time(axes: Axes, totals: Sequence[float]) -> None:
    """Minutes from 0; by powers of ten where one run takes far longer than another."""
    if max(totals) < _LOGARITHMIC_FROM * min(totals):
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda minutes, _: f"{minutes:,g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _finish_vertical(axes: Axes, measure: Measure, xlabel: str) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[np.isfinite(values)]
    if measure is LOSS:
        axes.set_ylim(0, _loss_top(values))
    else:
        bottom, top = _accuracy_range(values)
        axes.set_ylim(bottom, top + 0.015 * (top - bottom))  # so that a line at 100% shows
    style_axes(axes, xlabel, measure.axis)


def _loss_top(values: np.ndarray) -> float:
    """Just above the highest loss, except that a few spikes far above the rest are cut off."""
    usual = values[values <= 5 * np.percentile(values, 90)] if values.size else values
    return 1.06 * float(usual.max(initial=0)) or 1.0


def _accuracy_range(values: np.ndarray) -> tuple[float, float]:
    """Multiples of 10 around accuracies in percent; up to 100 unless that is mostly empty."""
    if not values.size:
        return 0.0, 100.0
    bottom = max(0.0, 10.0 * math.floor((values.min() - 1) / 10))
    top = min(100.0, 10.0 * math.ceil((values.max() + 1) / 10))
    return bottom, 100.0 if top > 70 else top


_Corner = Literal["upper right", "lower right", "best"]


def _legend_corner(axes: Axes, corner: _Corner) -> _Corner:
    """The usual corner, so that the legend stays put between epochs, or 'best' if it is taken."""
    points = np.concatenate([line.get_xydata() for line in axes.get_lines()])
    x, y = axes.transLimits.transform(points).T  # 0-1 over the axes; a gap compares as False
    near = y > 0.58 if corner.startswith("upper") else y < 0.42
    return "best" if np.any((x > 0.6) & near) else corner


def _dataset(dataset: str) -> str:
    return short_name(Path(dataset).name or dataset)
