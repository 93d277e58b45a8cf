"""The design space in one picture: parameters against multiply-adds, known answers marked."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from flax_resnet.plots.curves import check_format, save_figure, style_axes
from flax_resnet.search.space import KNOWN, Candidate, KnownAnswer

_MARK = "#D55E00"  # Okabe and Ito's vermilion, as in plots.py: apart from every colour of the map
_FONT = 11
_DOTS = 2000  # from here on the dots become small
_EXACT = "public answer, accuracy on CIFAR-10's test images"
_PARAMS_ALONE = "the same, but only its parameters are public"


def draw_designs(
    candidates: Sequence[Candidate],
    max_params: int,
    output: Path,
    known: Sequence[KnownAnswer] = KNOWN,
) -> Path:
    """Writes design_figure to a .png, .svg or .pdf file, and returns it.

    Raises:
      UserError: the picture's format is unknown, or it cannot be written.
    """
    check_format(output)
    save_figure(design_figure(candidates, max_params, known), output)
    return output


def design_figure(
    candidates: Sequence[Candidate], max_params: int, known: Sequence[KnownAnswer] = KNOWN
) -> Figure:
    """All designs as dots coloured by depth; public answers with their accuracy as marks.

    An answer whose design is not public has its parameters alone: a mark on that axis.

    Args:
      candidates: the designs, in any order; may be none.
      max_params: the bound, drawn as a line.
      known: public answers; those without a number of parameters or beyond the bound are left out.
    """
    marks = {k: k.params for k in known if k.params is not None and k.params <= max_params}
    figure = Figure(figsize=(9, 5.2), dpi=160, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if candidates:
        dots = axes.scatter(
            [c.params / 1e6 for c in candidates],
            [c.multiply_adds / 1e9 for c in candidates],
            c=[c.depth for c in candidates],
            s=10 if len(candidates) < _DOTS else 4,
            cmap="viridis_r",
            linewidths=0,
            rasterized=True,  # an .svg of every dot would be slow to open
        )
        bar = figure.colorbar(dots, pad=0.02, aspect=30, ticks=MaxNLocator(8, integer=True))
        bar.set_label("depth (layers with weights)", fontsize=_FONT)
        bar.outline.set_visible(False)
    axes.axvline(max_params / 1e6, color="#777777", linewidth=1.2, linestyle="dashed")
    axes.set_xlim(0, 1.03 * max_params / 1e6)
    axes.set_ylim(0, _top([*candidates, *marks]))
    for answer, params in marks.items():
        _mark(axes, answer, params)
    _explain_marks(axes)
    style_axes(axes, "parameters (millions)", "multiply-adds an image (10$^9$)")
    axes.set_title(
        f"{len(candidates):,} residual networks within {max_params:,} parameters",
        fontsize=_FONT + 1,
        loc="left",
    )
    return figure


def _top(drawn: Sequence[Candidate | KnownAnswer]) -> float:
    """Just above the highest dot or mark, in 10**9 multiply-adds."""
    return 1.1 * max((one.multiply_adds or 0 for one in drawn), default=0) / 1e9 or 1.0


def _mark(axes: Axes, answer: KnownAnswer, params: int) -> None:
    """A star where the design is; without one a triangle on the axis of parameters."""
    exact = answer.multiply_adds is not None
    x, y = params / 1e6, (answer.multiply_adds or 0) / 1e9
    axes.plot(
        [x],
        [y],
        marker="*" if exact else "^",
        markersize=15 if exact else 9,
        color=_MARK,
        markeredgecolor="white",
        linestyle="none",
        clip_on=False,
        zorder=4,
        label=_EXACT if exact else _PARAMS_ALONE,
    )
    left = x > sum(axes.get_xlim()) / 2
    axes.annotate(
        f"{answer.name}: {answer.accuracy:.2%}",
        (x, y),
        xytext=(-9 if left else 9, 4 if exact else 9),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=_FONT - 1,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
        zorder=5,
    )


def _explain_marks(axes: Axes) -> None:
    """A legend line for each kind of mark that is there, in the corner that no design reaches."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    if kinds:
        axes.legend(kinds.values(), kinds, loc="upper left", frameon=False, fontsize=_FONT - 1)
