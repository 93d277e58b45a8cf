"""Reliability diagrams: accuracy by confidence."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flax_resnet.inference.calibration import Calibration
from flax_resnet.plots.style import COLORS, DPI, FONT, GREY, style_axes

FEWEST = 10  # images of a bin that is drawn


def calibration_figure(measured: Calibration, title: str) -> Figure:
    """Accuracy by confidence where a bin has images enough, and the share of images in each."""
    figure = Figure(figsize=(5.4, 5.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = len(measured.images)
    left, width = [100 * i / bins for i in range(bins)], 100 / bins
    heights = [
        100 * accuracy if images >= FEWEST else 0.0
        for images, accuracy in zip(measured.images, measured.accuracy, strict=True)
    ]
    upper.bar(left, heights, width, align="edge", color=COLORS[0], edgecolor="white")
    upper.plot(
        [0, 100], [0, 100], color=GREY, linewidth=1.4, linestyle=(0, (4, 1.6)),
        label="as accurate as confident",
    )  # fmt: skip
    upper.legend(loc="upper left", fontsize=FONT - 2)
    style_axes(upper, "", "accuracy (%)")
    upper.set_xlim(0, 100)
    upper.set_ylim(0, 100)
    shares = [100 * count / sum(measured.images) for count in measured.images]
    lower.bar(left, shares, width, align="edge", color=GREY, edgecolor="white")
    style_axes(lower, "confidence (%)", "images (%)")
    figure.suptitle(title, fontsize=FONT, parse_math=False)
    return figure
