import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from flax_resnet.judging.label_errors import find_label_errors


def plain(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """The paper's definition, image by image."""
    classes = probabilities.shape[1]
    thresholds = {}
    for c in range(classes):
        own = [p[c] for p, label in zip(probabilities, labels, strict=True) if label == c]
        if own:
            thresholds[c] = sum(own) / len(own)
    found = []
    for i, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [c for c, threshold in thresholds.items() if p[c] >= threshold]
        if confident and max(confident, key=lambda c: p[c]) != label:
            found.append(i)
    return sorted(found, key=lambda i: probabilities[i, labels[i]])


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities over 3 folds, labels with every 40th wrong, the places of these."""
    images, labels = load_digits(return_X_y=True)
    wrong = np.arange(0, len(labels), 40)
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + 3) % 10
    network = LogisticRegression(C=0.1, max_iter=100)
    probabilities = cross_val_predict(network, images / 16, noisy, cv=3, method="predict_proba")
    return probabilities, noisy, wrong


def test_wrong_labels_are_found(digits):
    probabilities, labels, wrong = digits
    found = find_label_errors(probabilities, labels)
    assert len(set(wrong) & set(found)) >= 0.6 * len(wrong)
    assert len(set(found) - set(wrong)) <= 0.01 * len(labels)
    assert len(set(found[:20]) & set(wrong)) >= 18  # the least likely labels come first


def test_they_are_those_of_the_papers_definition(digits):
    probabilities, labels, _ = digits
    assert find_label_errors(probabilities, labels).tolist() == plain(probabilities, labels)
    few = probabilities[:60], labels[:60] % 7  # classes without an image
    assert find_label_errors(*few).tolist() == plain(*few)


def test_labels_that_are_sure_have_no_errors():
    labels = np.arange(30) % 3
    assert find_label_errors(np.eye(3)[labels] * 0.8 + 0.05, labels).size == 0
