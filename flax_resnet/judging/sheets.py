"""What a run gets wrong, doubts and takes for a label error: images, and sheets of them."""

from pathlib import Path

import numpy as np

from flax_resnet.judging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from flax_resnet.judging.judge import Judged
from flax_resnet.judging.label_errors import find_label_errors
from flax_resnet.plots.contact_sheet import contact_sheet
from flax_resnet.plots.style import save_figure

MOST = 40  # images of a sheet


def chosen_images(judged: Judged, count: int) -> dict[str, tuple[str, np.ndarray]]:
    """Name of each sheet -> (its title, the places of its images); those with none are left out."""
    scores = judged.scores
    found = {
        "mistakes": ("The most confident mistakes", scores.mistakes),
        "doubtful_hits": ("Right, with the least confidence", scores.hits),
    }
    if not scores.trained_on:
        places = find_label_errors(scores.probabilities, scores.labels)
        found["label_errors"] = "Labels that are likely wrong", places
    return {name: (title, at[:count]) for name, (title, at) in found.items() if len(at)}


def caption(judged: Judged, place: int | np.integer) -> str:
    """'dog 41%', and below it 'label: cat' where that is another."""
    scores, names = judged.scores, judged.model.class_names
    guess, label = scores.predictions[place], scores.labels[place]
    text = f"{names[guess]} {scores.probabilities[place, guess]:.0%}"
    return text if guess == label else f"{text}\nlabel: {names[label]}"


def write_sheets(judged: Judged, folder: Path) -> list[Path]:
    """Writes a sheet for each of chosen_images, and one of the corruptions if they were measured.

    Raises:
      UserError: a file cannot be written.
    """
    figures = {
        name: contact_sheet(list(judged.images[at]), [caption(judged, i) for i in at], title)
        for name, (title, at) in chosen_images(judged, MOST).items()
    }
    if judged.corrupted:
        kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
        figures["corruptions"] = contact_sheet(
            [corrupt(judged.images[:1], *kind)[0] for kind in kinds],
            [f"{name} {severity}" for name, severity in kinds],
            "The first image, corrupted",
            columns=len(SEVERITIES),
        )
    paths = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        save_figure(figure, path)
    return list(paths)
