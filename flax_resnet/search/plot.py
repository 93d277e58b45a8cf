"""The design space as a figure: parameters against multiply-adds, published results marked."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from flax_resnet.plots.curves import check_format
from flax_resnet.plots.style import COLORS, save_figure, style_axes
from flax_resnet.search.published import PUBLISHED, Published
from flax_resnet.search.space import Candidate

_MARK = COLORS[1]  # vermilion: not in the color map
_FONT = 11
_MANY = 2000  # designs, from which on the dots are smaller


def draw_designs(
    candidates: Sequence[Candidate],
    max_params: int,
    output: Path,
    published: Sequence[Published] = PUBLISHED,
) -> Path:
    """Writes design_figure to a .png, .svg or .pdf file, and returns it.

    Raises:
      UserError: unknown format, or the file cannot be written.
    """
    check_format(output)
    save_figure(design_figure(candidates, max_params, published), output)
    return output


def design_figure(
    candidates: Sequence[Candidate],
    max_params: int,
    published: Sequence[Published] = PUBLISHED,
) -> Figure:
    """Designs as dots colored by depth, published results as stars with their accuracy.

    Args:
      candidates: the designs, in any order; may be empty.
      max_params: the budget, drawn as a line; results over it are left out.
      published: the results.
    """
    stars = [result for result in published if result.cost.params <= max_params]
    figure = Figure(figsize=(9, 5.2), dpi=160, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if candidates:
        dots = axes.scatter(
            [c.params / 1e6 for c in candidates],
            [c.multiply_adds / 1e9 for c in candidates],
            c=[c.depth for c in candidates],
            s=10 if len(candidates) < _MANY else 4,
            cmap="viridis_r",
            linewidths=0,
            rasterized=True,  # an .svg with every dot would be slow to open
        )
        bar = figure.colorbar(dots, pad=0.02, aspect=30, ticks=MaxNLocator(8, integer=True))
        bar.set_label("depth (layers with weights)", fontsize=_FONT)
        bar.outline.set_visible(False)
    axes.axvline(max_params / 1e6, color="#777777", linewidth=1.2, linestyle="dashed")
    axes.set_xlim(0, 1.03 * max_params / 1e6)
    heights = [c.multiply_adds for c in candidates] + [s.cost.multiply_adds for s in stars]
    axes.set_ylim(0, 1.1 * max(heights, default=0) / 1e9 or 1.0)
    for result in stars:
        _mark(axes, result)
    if stars:
        axes.legend(
            handles=axes.get_lines()[-1:], loc="upper left", frameon=False, fontsize=_FONT - 1
        )
    style_axes(axes, "parameters (millions)", "multiply-adds per image (10$^9$)")
    axes.set_title(
        f"{len(candidates):,} residual networks with at most {max_params:,} parameters",
        fontsize=_FONT + 1,
        loc="left",
    )
    return figure


def _mark(axes: Axes, result: Published) -> None:
    x, y = result.cost.params / 1e6, result.cost.multiply_adds / 1e9
    axes.plot(
        [x],
        [y],
        marker="*",
        markersize=15,
        color=_MARK,
        markeredgecolor="white",
        linestyle="none",
        clip_on=False,
        zorder=4,
        label="published accuracy on CIFAR-10's test images",
    )
    left = x > sum(axes.get_xlim()) / 2
    axes.annotate(
        f"{result.name}: {result.accuracy:.2%}",
        (x, y),
        xytext=(-9 if left else 9, 4),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=_FONT - 1,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
        zorder=5,
    )
