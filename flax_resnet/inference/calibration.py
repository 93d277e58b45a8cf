"""Whether a network's confidence can be trusted, and the temperature that mends it.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, sections 2 and 4.2.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images binned by confidence, the probability of the likeliest class; bins of equal width.

    Attributes:
      images: how many are in each bin.
      confidence: their mean confidence; 0 in an empty bin.
      accuracy: the share of them whose likeliest class is right; 0 in an empty bin.
    """

    images: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def mean_confidence(self) -> float:
        """Over all images."""
        return float(np.average(self.confidence, weights=self.images))

    @property
    def mean_accuracy(self) -> float:
        """Over all images."""
        return float(np.average(self.accuracy, weights=self.images))

    @property
    def error(self) -> float:
        """Expected calibration error, the mean of `|confidence - accuracy|` over the images."""
        gaps = np.abs(np.subtract(self.confidence, self.accuracy))
        return float(np.average(gaps, weights=self.images))


def calibrate(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> Calibration:
    """Bins one or more images."""
    confidence = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    each = np.maximum(images, 1)
    return Calibration(
        tuple(images.tolist()),
        tuple((np.bincount(bin_of, confidence, bins) / each).tolist()),
        tuple((np.bincount(bin_of, right, bins) / each).tolist()),
    )


def fit_temperature(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> float:
    """What to divide logits by for the least mean loss, from 1/20 to 20."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    chosen = np.arange(len(labels)), labels
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return -log_softmax(wide / math.exp(log_temperature), axis=-1)[chosen].mean()

    ends = -math.log(20), math.log(20)
    return math.exp(minimize_scalar(loss, bounds=ends, method="bounded").x)


def cross_fitted(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n classes"], float]:
    """Each random half of two or more logits over the temperature of the other half.

    Returns:
      The scaled logits, and the geometric mean of both temperatures.
    """
    half = np.random.RandomState(0).permutation(len(labels)) % 2  # NEP 19: the same everywhere
    temperatures = [fit_temperature(logits[half != i], labels[half != i]) for i in (0, 1)]
    scaled = logits / np.array(temperatures, logits.dtype)[half, None]
    return scaled, math.sqrt(temperatures[0] * temperatures[1])
