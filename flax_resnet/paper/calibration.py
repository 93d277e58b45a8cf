"""Overfitting seen in the confidence: the network of the paper's own run, by its test images."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from flax_resnet.inference.calibration import Calibration, calibrate
from flax_resnet.inference.model import load
from flax_resnet.inference.test_images import load_test_images
from flax_resnet.paper.history import percent
from flax_resnet.process.files import read_text, write_text

FILE = "calibration.json"


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
