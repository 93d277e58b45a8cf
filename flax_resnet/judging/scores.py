"""What a network's answers to labelled images are worth."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from flax_resnet.inference.calibration import (
    Calibration,
    calibrate,
    cross_fitted,
    fit_temperature,
)
from flax_resnet.report.spread import share_interval

TOP = 5
VALIDATION = "fitted on the validation images"
HALVES = "each half of the images by the other half's"


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Every figure is computed when it is first asked for, most by scikit-learn.

    Attributes:
      logits: of one or more images.
      labels: from 0 to the number of classes - 1.
      class_names: in the order of the logits.
      held_out: logits and labels of other images that it was not trained on, for the temperature;
        None: the judged images serve, each half for the other.
      trained_on: whether it was trained on these images: they tell no temperature.
    """

    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    held_out: tuple[np.ndarray, np.ndarray] | None = None
    trained_on: bool = False

    @functools.cached_property
    def log_probabilities(self) -> Float[np.ndarray, "n classes"]:
        """In float64."""
        return _log_softmax(self.logits)

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "n classes"]:
        """In float64."""
        return np.exp(self.log_probabilities)

    @functools.cached_property
    def predictions(self) -> Int[np.ndarray, " n"]:
        """The likeliest class of each image."""
        return self.logits.argmax(-1)

    @property
    def is_right(self) -> Bool[np.ndarray, " n"]:
        """Whether it is the label."""
        return self.predictions == self.labels

    @property
    def loss(self) -> float:
        """Mean cross-entropy; scikit-learn's log_loss would cut the most confident mistakes off."""
        return float(-self.log_probabilities[np.arange(len(self.labels)), self.labels].mean())

    @property
    def accuracy(self) -> float:
        """The share of images whose likeliest class is right."""
        return float(self.is_right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the accuracy."""
        return share_interval(int(self.is_right.sum()), len(self.labels))

    @property
    def top5(self) -> float | None:
        """The share whose label is among the five likeliest classes, None of five or fewer."""
        from sklearn.metrics import top_k_accuracy_score

        classes = range(len(self.class_names))
        if len(classes) <= TOP:
            return None
        return float(top_k_accuracy_score(self.labels, self.logits, k=TOP, labels=classes))

    @functools.cached_property
    def by_class(self) -> dict[str, np.ndarray]:
        """precision, recall, f1 and images of each class; NaN for 0 / 0."""
        from sklearn.metrics import precision_recall_fscore_support

        found = precision_recall_fscore_support(
            self.labels,
            self.predictions,
            labels=range(len(self.class_names)),
            zero_division=np.nan,  # pyright: ignore[reportArgumentType] (documented)
        )
        names = "precision", "recall", "f1", "images"
        return dict(zip(names, map(np.asarray, found), strict=True))

    @property
    def mean_f1(self) -> float:
        """Of the classes that have one."""
        return float(np.nanmean(self.by_class["f1"]))

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """Images by their label (row) and likeliest class (column)."""
        from sklearn.metrics import confusion_matrix

        classes = range(len(self.class_names))
        return confusion_matrix(self.labels, self.predictions, labels=classes)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Accuracy by confidence."""
        return calibrate(self.probabilities, self.labels)

    @functools.cached_property
    def scaling(self) -> tuple[float, Calibration, str] | None:
        """Temperature, accuracy by confidence with it, what it was fitted on; None without any."""
        if self.trained_on or len(self.labels) < 2:
            return None
        if self.held_out is not None:
            temperature, source = fit_temperature(*self.held_out), VALIDATION
            scaled = self.logits / np.float32(temperature)
        else:
            (scaled, temperature), source = cross_fitted(self.logits, self.labels), HALVES
        return temperature, calibrate(np.exp(_log_softmax(scaled)), self.labels), source

    @property
    def mistakes(self) -> Int[np.ndarray, " found"]:
        """The images that it gets wrong, the highest confidence first."""
        return self._by_confidence(~self.is_right)[::-1]

    @property
    def hits(self) -> Int[np.ndarray, " found"]:
        """The images that it gets right, the lowest confidence first."""
        return self._by_confidence(self.is_right)

    def _by_confidence(self, chosen: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " found"]:
        places = np.flatnonzero(chosen)
        return places[np.argsort(self.probabilities.max(-1)[places], kind="stable")]

    def as_json(self, split: str) -> dict[str, Any]:
        """All figures; `split` begins the names of loss and accuracy, as in metrics.jsonl."""
        temperature, scaled, _ = self.scaling or (None, None, "")
        columns = {name: values.tolist() for name, values in self.by_class.items()}
        return {
            "images": len(self.labels),
            f"{split}_loss": _finite(self.loss),
            f"{split}_accuracy": self.accuracy,
            "accuracy_interval95": dict(zip(("low", "high"), self.interval, strict=True)),
            "top5_accuracy": self.top5,
            "mean_f1": _finite(self.mean_f1),
            "calibration_error": self.calibration.error,
            "temperature": temperature,
            "scaled_calibration_error": scaled and scaled.error,
            "classes": {
                name: {column: _finite(values[i]) for column, values in columns.items()}
                for i, name in enumerate(self.class_names)
            },
            "confusion": self.confusion.tolist(),
        }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    return log_softmax(logits.astype(np.float64), axis=-1)


def _finite(value: float | int) -> float | int | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def mcnemar(first: Scores, second: Scores) -> tuple[int, int, float]:
    """McNemar's exact test of two networks on the same images (McNemar 1947).

    Returns:
      Images that only the first gets right, that only the second does, and the probability of a
      difference this large or larger if both were equally good.
    """
    from scipy.stats import binomtest

    only_first = int((first.is_right & ~second.is_right).sum())
    only_second = int((second.is_right & ~first.is_right).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return only_first, only_second, p
