"""A confusion matrix as a picture."""

import numpy as np
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from flax_resnet.plots.style import COLORS, DPI, FONT, short_name

MOST_NAMED = 30  # classes whose names and numbers fit
_COLORS = LinearSegmentedColormap.from_list("share", ["#ffffff", COLORS[0]])


def confusion_figure(
    confusion: Int[np.ndarray, "classes classes"], names: tuple[str, ...], title: str
) -> Figure:
    """Rows are labels, columns the network's answers; a cell's color is its share of the row."""
    classes = len(names)
    named = classes <= MOST_NAMED
    side = max(4.4, 1.3 + 0.42 * classes) if named else 7.0
    figure = Figure(figsize=(side, side), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=_COLORS, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("answer", fontsize=FONT)
    axes.set_ylabel("label", fontsize=FONT)
    axes.spines[:].set_color("#BBBBBB")
    if named:
        labels = [short_name(name, 14) for name in names]
        axes.set_xticks(range(classes), labels, rotation=90, fontsize=FONT - 1, parse_math=False)
        axes.set_yticks(range(classes), labels, fontsize=FONT - 1, parse_math=False)
        largest = max(len(str(count)) for count in confusion.flat)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if shares[row, column] > 0.5 else "#333333"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color,
                    fontsize=min(FONT - 2, 36 / largest),
                )  # fmt: skip
    axes.tick_params(color="#BBBBBB")
    axes.set_title(title, fontsize=FONT, loc="left", parse_math=False)
    return figure
