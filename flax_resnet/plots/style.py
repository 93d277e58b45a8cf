"""The look that all pictures share, and how one is written."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from flax_resnet.process.files import replacing

# Okabe and Ito, "Color Universal Design" (2008): apart for colour-blind eyes too. Their yellow is
# left out: it is hard to see on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # 8 over 7 colours: 56 runs, no pair twice
GREY = "#777777"
DASHES = {"train": (0, (4, 1.6)), "val": (0, (6, 1.6, 1.2, 1.6)), "test": "solid"}
DPI = 160
FONT = 12  # points; a README shows the pictures at about half their size


def style_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels, a light grid behind the lines, and a frame at the left and below alone."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1, color="#BBBBBB")
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")


def set_labels(legend: Legend, labels: Sequence[str]) -> None:
    """Names as they are: matplotlib would drop one that starts with _ and typeset $...$."""
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def shortened(name: str, length: int = 26) -> str:
    """A name without its middle where it would fill the picture."""
    half = length // 2 - 1
    return name if len(name) <= length else f"{name[:half]}...{name[-half:]}"


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a picture in the format of its name; the same picture gives the same bytes.

    Raises:
      UserError: it cannot be written.
    """
    picture_format = path.suffix[1:].lower()
    # An SVG would hold the time and random names, a PDF the time.
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(picture_format)
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), replacing(path) as part:
        figure.savefig(part, format=picture_format, metadata=date)
