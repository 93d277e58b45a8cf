"""Whether a network's confidence can be trusted: accuracy by confidence.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2.
"""

import dataclasses

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
        """Expected calibration error: mean over images of |confidence - accuracy| of the bin."""
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
