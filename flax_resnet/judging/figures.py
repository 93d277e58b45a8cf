"""Scores in tables, for the terminal and the page."""

from collections.abc import Mapping, Sequence

import numpy as np

from flax_resnet.config.build import build_model
from flax_resnet.judging.corruptions import SEVERITIES
from flax_resnet.judging.judge import Judged
from flax_resnet.judging.scores import TOP, Scores
from flax_resnet.models.summary import Summary, summarize
from flax_resnet.report.table import Table


def percent(value: float | None) -> str:
    """A fraction as in 90.84%; '-' for None and NaN."""
    return "-" if value is None or np.isnan(value) else f"{value:.2%}"


def network_summary(judged: Judged) -> Summary:
    """Layers, parameters and multiply-adds."""
    model = judged.model
    return summarize(build_model(model.config, len(model.class_names)), model.image_shape)


def figures_table(judged: Sequence[Judged], names: Sequence[str]) -> Table:
    """The figures of one run or several, a column for each."""
    columns = [_figures(one) for one in judged]
    labels = dict.fromkeys(label for column in columns for label in column)
    rows = [(label, *(column.get(label, "-") for column in columns)) for label in labels]
    return Table(("", *names), rows, caption="Figures")


def _figures(judged: Judged) -> dict[str, str]:
    scores, summary = judged.scores, network_summary(judged)
    figures = {
        "accuracy": percent(scores.accuracy),
        "95% interval": "{:.2%} to {:.2%}".format(*scores.interval),
        f"top-{TOP} accuracy": percent(scores.top5),
        "loss": f"{scores.loss:.4f}",
        "mean F1": percent(scores.mean_f1),
        "calibration error": percent(scores.calibration.error),
    }
    if scores.scaling is not None:
        temperature, scaled, _ = scores.scaling
        figures["with temperature"] = f"{percent(scaled.error)} ({temperature:.3f})"
    for views, viewed in judged.views.items():
        figures[f"accuracy, {views} views"] = percent(viewed.accuracy)
    if judged.corrupted:
        figures["accuracy, corrupted"] = percent(float(np.mean(list(judged.corrupted.values()))))
    return figures | {
        "images": f"{len(scores.labels):,}",
        "parameters": f"{summary.params:,}",
        "multiply-adds": f"{summary.multiply_adds / 1e6:,.1f} M",
    }


def confusions(scores: Scores, count: int) -> str:
    """The commonest confusions, such as 'cat taken for dog (85)'."""
    wrong = scores.confusion * (1 - np.eye(len(scores.class_names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    names = scores.class_names
    found = [
        f"{names[label]} taken for {names[guess]} ({wrong[label, guess]:,})"
        for label, guess in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[label, guess]
    ]
    return "; ".join(found) or "nothing"


def class_table(scores: Scores) -> Table:
    """Precision, recall and F1 of each class."""
    *shares, images = scores.by_class.values()
    rows = [
        (name, *(percent(share[i]) for share in shares), f"{images[i]:,}")
        for i, name in enumerate(scores.class_names)
    ]
    return Table(("class", "precision", "recall", "F1", "images"), rows, caption="By class")


def corruption_table(corrupted: Mapping[str, Sequence[float]]) -> Table:
    """Accuracy under each corruption at each severity, and the means."""
    means = np.mean(list(corrupted.values()), axis=0)
    rows = [
        (name, *map(percent, accuracies), percent(float(np.mean(accuracies))))
        for name, accuracies in (*corrupted.items(), ("mean", means))
    ]
    header = ("severity", *map(str, SEVERITIES), "mean")
    return Table(header, rows, caption="Accuracy on corrupted images, by severity")
