"""The results of a sweep as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flax_resnet.plots.style import COLORS, DPI, FONT, save_figure, short_name, style_axes
from flax_resnet.search.sweep import METRICS, Result, ranked_by


def draw_sweep(results: Sequence[Result], title: str, path: Path) -> None:
    """A line for each setting: its seeds as dots, their mean and its 95% interval.

    Args:
      results: the best first.
      title: of the figure.
      path: the file; its suffix is the format.

    Raises:
      UserError: it cannot be written.
    """
    metric = ranked_by(results)
    figure = Figure(figsize=(7.5, 1.6 + 0.42 * len(results)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = []
    for place, result in enumerate(results):
        found = result.spread(metric)
        interval = found.interval()
        if interval is not None:
            ends = [100 * end for end in interval]
            axes.plot(ends, [place, place], color=COLORS[0], linewidth=6, alpha=0.3)
        values = [100 * value for value in result.values[metric]]
        axes.plot(values, [place] * len(values), "o", color=COLORS[0], markersize=4, alpha=0.7)
        axes.plot(
            [100 * found.mean], [place], "|", color=COLORS[1], markersize=16, markeredgewidth=2
        )
        labels.append(short_name(result.name, 48))
    style_axes(axes, f"{METRICS[metric]} accuracy (%)", "")
    axes.set_yticks(range(len(results)), labels, fontsize=FONT - 1, parse_math=False)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_title(title, fontsize=FONT, parse_math=False, loc="left")
    save_figure(figure, path)
