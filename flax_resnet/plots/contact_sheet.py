"""Images beside each other, a caption under each."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flax_resnet.plots.style import DPI, FONT, short_name

COLUMNS = 8


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    captions: Sequence[str],
    title: str,
    columns: int = COLUMNS,
) -> Figure:
    """One or more images, row by row.

    Args:
      images: of any sizes.
      captions: a few words under each; a line break starts a second line.
      title: above them.
      columns: images in a row.
    """
    rows = math.ceil(len(images) / columns)
    height, width = images[0].shape[:2]
    tile = 1.35 * min(2.0, height / width)
    lines = max(caption.count("\n") + 1 for caption in captions)
    size = 1.35 * columns, rows * (tile + 0.19 * lines) + 0.5
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image, interpolation="nearest")
        short = "\n".join(short_name(line, 20) for line in caption.split("\n"))
        axes.text(
            0.5, -0.04, short, transform=axes.transAxes, ha="center", va="top",
            fontsize=FONT - 4, parse_math=False,
        )  # fmt: skip
    figure.suptitle(title, fontsize=FONT, parse_math=False)
    return figure
