"""Reliability diagrams: accuracy by confidence."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flax_resnet.inference.calibration import Calibration
from flax_resnet.plots.style import COLORS, DPI, FONT, GREY, style_axes

FEWEST = 10  # images of a bin whose accuracy means something


def calibration_figure(measured: Calibration, title: str) -> Figure:
    """Accuracy by confidence, pale where a bin has few images, and the share of images in each."""
    figure = Figure(figsize=(5.4, 5.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = len(measured.images)
    left, width = [100 * i / bins for i in range(bins)], 100 / bins
    heights = [100 * accuracy for accuracy in measured.accuracy]
    bars = upper.bar(left, heights, width, align="edge", color=COLORS[0], edgecolor="white")
    few = [b for b, images in zip(bars, measured.images, strict=True) if 0 < images < FEWEST]
    for number, bar in enumerate(few):
        bar.set_alpha(0.3)
        bar.set_label(f"fewer than {FEWEST} images" if number == 0 else "")
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
