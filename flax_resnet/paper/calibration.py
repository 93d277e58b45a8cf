"""Overfitting seen in the confidence: the network of the paper's own run, by its test images."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flax_resnet.inference.calibration import Calibration, calibrate
from flax_resnet.inference.model import load
from flax_resnet.inference.test_images import load_test_images
from flax_resnet.paper.history import percent
from flax_resnet.plots.style import COLORS, DPI, FONT, GREY, style_axes
from flax_resnet.process.files import read_text, write_text

FILE = "calibration.json"
FEWEST = 10  # images of a bin that is drawn


def note_calibration(run: Path) -> None:
    """Writes the calibration of a run's last checkpoint to its folder, unless it is there.

    Raises:
      UserError: the run or its images cannot be read.
    """
    model = load(run)
    noted = read_calibration(run)
    if noted is not None and noted[0] == model.step:
        return
    images, labels = load_test_images(model, run)
    measured = dataclasses.asdict(calibrate(model.probabilities(images), labels))
    write_text(run / FILE, json.dumps({"step": model.step, **measured}, indent=2) + "\n")


def read_calibration(run: Path) -> tuple[int, Calibration] | None:
    """(the step it was measured after, calibration); None: it was not measured."""
    try:
        values: dict[str, Any] = json.loads(read_text(run / FILE))
        return values.pop("step"), Calibration(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def calibration_finding(measured: Calibration) -> str:
    """What the confidence says, in a sentence."""
    over = measured.mean_confidence - measured.mean_accuracy
    word = "overconfident" if over > 0 else "underconfident"
    return (
        f"On the {sum(measured.images):,} test images its mean confidence is "
        f"{percent(measured.mean_confidence)} and its accuracy {percent(measured.mean_accuracy)}: "
        f"it is {word} by {100 * abs(over):.2f} points. Expected calibration error "
        f"({len(measured.images)} bins): {100 * measured.error:.2f} points."
    )


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
    upper.plot([0, 100], [0, 100], color=GREY, linewidth=1.4, linestyle=(0, (4, 1.6)))
    upper.annotate(
        "as accurate as confident", (44, 46), rotation=45, rotation_mode="anchor", color=GREY,
        fontsize=FONT - 2, transform_rotates_text=True, va="bottom", ha="center",
    )  # fmt: skip
    style_axes(upper, "", "accuracy (%)")
    upper.set_xlim(0, 100)
    upper.set_ylim(0, 100)
    shares = [100 * count / sum(measured.images) for count in measured.images]
    lower.bar(left, shares, width, align="edge", color=GREY, edgecolor="white")
    style_axes(lower, "confidence (%)", "images (%)")
    figure.suptitle(title, fontsize=FONT, parse_math=False)
    return figure
