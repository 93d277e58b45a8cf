"""The look shared by all figures, and writing them to files."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from flax_resnet.process.errors import printable
from flax_resnet.process.files import replacing

# Okabe and Ito, "Color Universal Design" (2008): distinct for color-blind readers too. Without
# their yellow, which is hard to see on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # with 7 colors: 56 runs, no pair twice
GREY = "#777777"
DASHES = {"train": (0, (4, 1.6)), "val": (0, (6, 1.6, 1.2, 1.6)), "test": "solid"}
DPI = 160
FONT = 12  # points; a README shows the pictures at about half their size


def style_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Sets labels, a light grid behind the lines, and a frame on the left and bottom only."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1, color="#BBBBBB")
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")


def set_labels(legend: Legend, labels: Sequence[str]) -> None:
    """Sets names verbatim: matplotlib would drop one that starts with _ and typeset $...$."""
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def short_name(name: str, length: int = 26) -> str:
    """A name from outside (a file, run or data set) as it is drawn: printable, its middle cut."""
    name, half = printable(name), length // 2 - 1
    return name if len(name) <= length else f"{name[:half]}...{name[-half:]}"


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
      UserError: it cannot be written.
    """
    picture_format = path.suffix[1:].lower()
    # An SVG would hold the time and random names, a PDF the time.
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(picture_format)
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), replacing(path) as part:
        figure.savefig(part, format=picture_format, metadata=date)


def svg_of(figure: Figure, name: str) -> bytes:
    """A figure as an SVG for a page; `name` is unique on it."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
