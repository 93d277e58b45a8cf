"""Curves of loss and accuracy, drawn from the files of runs alone."""

import dataclasses
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
from matplotlib.ticker import MaxNLocator
from ml_collections import ConfigDict

from flax_resnet.plots.style import (
    COLORS,
    DASHES,
    DPI,
    FONT,
    GREY,
    MARKERS,
    save_figure,
    set_labels,
    shortened,
    style_axes,
)
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_metrics
from flax_resnet.runs.reference_log import Reference, read_reference

FORMATS = (".png", ".svg", ".pdf")

_MARKED_POINTS = 12  # a longer line carries about so many markers
_TITLE_LENGTH = 60  # characters over one run's figure; longer lines are smaller


@dataclasses.dataclass(frozen=True)
class Measure:
    """What an axis shows.

    Attributes:
      field: the end of its fields' names in a row: train_`field`, test_`field`.
      axis: the axis label, with the unit.
      scale: from the rows' unit to the axis'.
      wording: format of one value on the axis.
    """

    field: str
    axis: str
    scale: float
    wording: str

    def in_words(self, value: float | None) -> str:
        """A row's value as in a title; None: it was not finite."""
        if value is None:
            return "not finite"
        scaled = value * self.scale
        return self.wording.format(scaled) if scaled < 1e4 else f"{scaled:.3g}"


LOSS = Measure("loss", "cross-entropy loss", 1.0, "{:.4f}")
ACCURACY = Measure("accuracy", "accuracy (%)", 100.0, "{:.2f}%")


def draw_run(run: RunFolder, reference_log: str | None) -> list[Path]:
    """Writes loss.png and accuracy.png into the folder of a run.

    Args:
      run: with an epoch or more in its metrics file.
      reference_log: a run drawn behind, as for read_reference; None: none.

    Returns:
      The two files.

    Raises:
      UserError: the folder is no run or has no epoch yet, the reference is broken, or a picture
        cannot be written.
    """
    config, rows = run.config(), read_rows(run)
    reference = None if reference_log is None else read_reference(reference_log)
    paths = []
    for measure in (LOSS, ACCURACY):
        path = run.path / f"{measure.field}.png"
        save_figure(run_figure(measure, rows, config, reference), path)
        paths.append(path)
    return paths


def draw_comparison(runs: Sequence[RunFolder], output: Path) -> Path:
    """Writes one figure of several runs: loss at the left, accuracy at the right.

    Args:
      runs: each with an epoch or more.
      output: the picture, .png, .svg or .pdf.

    Returns:
      The file.

    Raises:
      UserError: a folder is no run, has no epoch yet or is given twice, or the picture's format is
        unknown or it cannot be written.
    """
    check_format(output)
    names = distinguishing_names([run.path for run in runs])
    configs = [run.config() for run in runs]
    rows = [read_rows(run) for run in runs]
    save_figure(
        comparison_figure(dict(zip(names, rows, strict=True)), _common_title(configs)), output
    )
    return output


def check_format(output: Path) -> None:
    """Checks that a picture's name ends in a known format.

    Raises:
      UserError: it does not.
    """
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"output {output}: its name must end in one of {', '.join(FORMATS)}")


def read_rows(run: RunFolder) -> list[Row]:
    """The epochs of a run, at least one.

    Raises:
      UserError: there is none yet, or the file is damaged.
    """
    rows = read_metrics(run.metrics_file) if run.metrics_file.exists() else []
    if not rows:
        raise UserError(f"{run.path} has no epoch yet: there is nothing to draw")
    return rows


def run_figure(
    measure: Measure,
    rows: Sequence[Row],
    config: ConfigDict,
    reference: Reference | None,
    title: str | None = None,
) -> Figure:
    """One measure of one run: training, test and, where there is one, validation set.

    Args:
      measure: LOSS or ACCURACY.
      rows: the epochs of the run, at least one.
      config: of the run.
      reference: drawn behind, up to the last epoch that the run will have.
      title: one or two lines; None: network, data set and the last epoch's test figure.
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
        end = max(config.num_epochs, last_epoch)
        ahead = [row for row in reference.rows if row["epoch"] <= end]
        last_epoch = max([last_epoch, *(row["epoch"] for row in ahead)])
        for name in ("train", "test"):
            lines.append(_add_line(axes, ahead, name, measure, GREY, ".", thin=True))
            labels.append(f"{shortened(reference.name)}, {name}")
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
    title = title or _run_title(measure, rows[-1], config)
    fitting = min(1.0, _TITLE_LENGTH / max(map(len, title.splitlines())))
    axes.set_title(title, fontsize=FONT * fitting, loc="left", parse_math=False)
    return figure


def _run_title(measure: Measure, row: Row, config: ConfigDict) -> str:
    value = row.get(f"test_{measure.field}")
    return (
        f"{shortened(_model(config))} on {shortened(_dataset(config))}\n"
        f"test {measure.field} {measure.in_words(value)} after epoch {row['epoch']}"
    )


def comparison_figure(runs: Mapping[str, Sequence[Row]], title: str) -> Figure:
    """Loss and accuracy of several runs side by side, a colour and a marker each.

    Args:
      runs: name for the legend -> epochs, at least one each.
      title: of the whole figure.
    """
    labels = [*(shortened(name, 60) for name in runs), "test", "train"]
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
    height = 4.4 + 0.25 * math.ceil(len(labels) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(11, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(1, 2), (LOSS, ACCURACY), strict=True):
        for i, rows in enumerate(runs.values()):
            color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
            _add_line(axes, rows, "train", measure, color, marker, thin=True)
            _add_line(axes, rows, "test", measure, color, marker)
        _finish_axes(axes, measure, max(rows[-1]["epoch"] for rows in runs.values()))
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
    """The shortest ends of paths that differ: runs/a/seed0 and runs/b/seed0 -> a/seed0, b/seed0.

    Raises:
      UserError: two paths are the same.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    names = []
    for i, own in enumerate(parts):
        others = parts[:i] + parts[i + 1 :]
        if own in others:
            raise UserError(f"{paths[i]} is given twice")
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
) -> Line2D:
    """Draws a field of the rows; a value that was not finite leaves a gap."""
    raw = [row.get(f"{name}_{measure.field}") for row in rows]
    values = np.array([math.nan if v is None else v * measure.scale for v in raw])
    # A point between two gaps has no line of its own: it always has its marker.
    gap = np.isnan(np.concatenate([[math.nan], values, [math.nan]]))
    marked = gap[:-2] & gap[2:]
    if not thin:
        marked[:: math.ceil(len(values) / _MARKED_POINTS)] = True
        marked[-1] = True
    (line,) = axes.plot(
        [row["epoch"] for row in rows],
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
    """Ranges, ticks, labels and grid; after the lines."""
    if last_epoch == 1:
        axes.set_xlim(0.5, 1.5)
    else:
        margin = 0.025 * (last_epoch - 1)
        axes.set_xlim(0 if last_epoch > 10 else 1 - margin, last_epoch + margin)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[np.isfinite(values)]
    if measure is LOSS:
        axes.set_ylim(0, _loss_top(values))
    else:
        bottom, top = _accuracy_range(values)
        axes.set_ylim(bottom, top + 0.015 * (top - bottom))  # a line at 100% in full
    style_axes(axes, "epoch", measure.axis)


def _loss_top(values: np.ndarray) -> float:
    """Just above the highest loss; a few spikes far above all others leave the picture."""
    usual = values[values <= 5 * np.percentile(values, 90)] if values.size else values
    return 1.06 * float(usual.max(initial=0)) or 1.0


def _accuracy_range(values: np.ndarray) -> tuple[float, float]:
    """Tens around the accuracies in percent; up to 100 where that is not mostly empty."""
    if not values.size:
        return 0.0, 100.0
    bottom = max(0.0, 10.0 * math.floor((values.min() - 1) / 10))
    top = min(100.0, 10.0 * math.ceil((values.max() + 1) / 10))
    return bottom, 100.0 if top > 70 else top


_Corner = Literal["upper right", "lower right", "best"]


def _legend_corner(axes: Axes, corner: _Corner) -> _Corner:
    """The corner where curves leave room as a rule, so that the legend stays; or the best place."""
    points = np.concatenate([line.get_xydata() for line in axes.get_lines()])
    x, y = axes.transLimits.transform(points).T  # 0-1 over the axes; a gap compares as False
    near = y > 0.58 if corner.startswith("upper") else y < 0.42
    return "best" if np.any((x > 0.6) & near) else corner


def _model(config: ConfigDict) -> str:
    values = config.to_dict()
    changed = any(value is not None for value in values["design"].values())
    return f"{values['model']} (changed)" if changed else values["model"]


def _dataset(config: ConfigDict) -> str:
    dataset: str = config.to_dict()["dataset"]
    return Path(dataset).name or dataset


def _common_title(configs: Sequence[ConfigDict]) -> str:
    models, datasets = {_model(c) for c in configs}, {_dataset(c) for c in configs}
    words = [shortened(models.pop())] if len(models) == 1 else [f"{len(configs)} runs"]
    return " on ".join(words + ([shortened(datasets.pop())] if len(datasets) == 1 else []))
