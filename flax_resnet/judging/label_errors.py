"""Labels that are likely wrong, by confident learning.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
arXiv 1911.00068, section 3.1.
"""

import numpy as np
from jaxtyping import Float, Int


def find_label_errors(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " found"]:
    """The images that are confidently of another class than their label says.

    An image is confidently of a class if its probability reaches the mean that the images labeled
    so have; of several such classes the likeliest counts (equation 1 of the paper).

    Args:
      probabilities: of each image by a network that was not trained on it: of test images, or of
        training images by folds (sklearn.model_selection.cross_val_predict, or a run per fold).
      labels: from 0 to the number of classes - 1.

    Returns:
      Their indices, the least likely labels first.
    """
    num_classes = probabilities.shape[1]
    given = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, given, minlength=num_classes)
    # Of a class without a label nothing can be confident.
    thresholds = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    likeliest = confident.argmax(1)
    found = np.flatnonzero((confident.max(1) >= 0) & (likeliest != labels))
    return found[np.argsort(given[found], kind="stable")]
