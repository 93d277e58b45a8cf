"""Every figure against scikit-learn's and against a plain loop over the images."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from flax_resnet.inference.calibration import calibrate, cross_fitted, fit_temperature
from flax_resnet.judging.figures import class_table, confusions
from flax_resnet.judging.scores import HALVES, VALIDATION, Scores, mcnemar
from flax_resnet.report.spread import share_interval

NAMES = tuple(f"class {i}" for i in range(8))


def answers(seed: int, images: int = 300, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that tend to the labels; the last class has no image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, images)
    logits = rng.normal(0, 1, (images, 8)) + 2 * np.eye(8)[labels]
    return (sharpness * logits).astype(np.float32), labels


@pytest.fixture(scope="module")
def scores() -> Scores:
    return Scores(*answers(0), NAMES)


def test_figures_are_scikit_learns(scores):
    labels, guesses, known = scores.labels, scores.logits.argmax(1), list(range(8))
    assert scores.accuracy == metrics.accuracy_score(labels, guesses)
    assert scores.loss == pytest.approx(
        metrics.log_loss(labels, scores.probabilities, labels=known), rel=1e-9
    )
    assert scores.top5 == metrics.top_k_accuracy_score(labels, scores.logits, k=5, labels=known)
    report = metrics.classification_report(
        labels, guesses, labels=known, output_dict=True, zero_division=np.nan
    )
    for i in known[:7]:
        row = report[str(i)]
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert scores.by_class[name][i] == pytest.approx(row[theirs])
        assert scores.by_class["images"][i] == row["support"]
    np.testing.assert_array_equal(
        scores.confusion, metrics.confusion_matrix(labels, guesses, labels=known)
    )


def test_figures_are_those_of_a_loop_over_the_images(scores):
    right, inside, losses = 0, 0, []
    counts = [[0] * 8 for _ in range(8)]
    for logits, label in zip(scores.logits.tolist(), scores.labels.tolist(), strict=True):
        order = sorted(range(8), key=lambda c: -logits[c])
        right += order[0] == label
        inside += label in order[:5]
        counts[label][order[0]] += 1
        losses.append(math.log(sum(math.exp(x - logits[label]) for x in logits)))
    assert scores.accuracy == right / 300 and scores.top5 == inside / 300
    assert scores.loss == pytest.approx(sum(losses) / 300)
    assert scores.confusion.tolist() == counts
    for c in range(7):
        recall = counts[c][c] / sum(counts[c])
        precision = counts[c][c] / sum(row[c] for row in counts)
        assert scores.by_class["recall"][c] == pytest.approx(recall)
        assert scores.by_class["precision"][c] == pytest.approx(precision)
        f1 = 2 * precision * recall / (precision + recall)
        assert scores.by_class["f1"][c] == pytest.approx(f1)
    assert math.isnan(scores.by_class["recall"][7]) and class_table(scores).rows[7][2] == "-"


def test_calibration_error_is_that_of_a_loop(scores):
    gap = 0.0
    for low in range(15):
        inside = [
            (p.max(), p.argmax() == label)
            for p, label in zip(scores.probabilities, scores.labels, strict=True)
            if low / 15 <= p.max() < (low + 1) / 15 or (low == 14 and p.max() == 1)
        ]
        gap += abs(sum(confidence - hit for confidence, hit in inside))
    assert scores.calibration.error == pytest.approx(gap / 300)


def test_interval_is_wilsons():
    n, p, z = 360, 350 / 360, 1.959963984540054  # the 97.5% quantile of the normal distribution
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert share_interval(350, 360) == pytest.approx((middle - half, middle + half))
    low, high = share_interval(10, 10)
    assert 0.7 < low < 0.73 and high == 1


def test_temperature_is_scikit_learns_and_the_best_of_a_grid():
    logits, labels = answers(1, 2000, sharpness=4.0)
    labels[:40] = np.arange(40) % 8  # scikit-learn wants every class, in each of its folds
    found = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return Scores(logits / np.float32(temperature), labels, NAMES).loss

    grid = np.geomspace(0.05, 20, 4001)
    assert found == pytest.approx(grid[np.argmin([loss(t) for t in grid])], rel=2e-3)
    network = LogisticRegression().fit(np.eye(8), np.arange(8))
    network.coef_, network.intercept_ = np.eye(8), np.zeros(8)  # its logits are its inputs
    theirs = CalibratedClassifierCV(FrozenEstimator(network), method="temperature")
    theirs.fit(logits, labels)
    scaled = Scores(logits / np.float32(found), labels, NAMES)
    np.testing.assert_allclose(theirs.predict_proba(logits), scaled.probabilities, atol=2e-3)


def test_temperature_comes_from_other_images_than_it_is_judged_on():
    logits, labels = answers(2, 1000, sharpness=4.0)
    held_out = answers(3, 1000, sharpness=4.0)
    scores = Scores(logits, labels, NAMES, held_out)
    assert scores.scaling is not None
    temperature, scaled, source = scores.scaling
    assert source == VALIDATION and temperature == fit_temperature(*held_out)
    assert scaled.error < scores.calibration.error / 2
    halves = Scores(logits, labels, NAMES)
    assert halves.scaling is not None and halves.scaling[2] == HALVES
    fitted, mean = cross_fitted(logits, labels)
    ratios = np.unique((logits[:, 0] / fitted[:, 0]).round(3))
    assert len(ratios) == 2 and ratios.min() < mean < ratios.max()
    # Wrong labels in one half change only the other half's temperature.
    half = ratios.searchsorted((logits[:, 0] / fitted[:, 0]).round(3))
    wrong = np.where(half == 0, (labels + 1) % 7, labels)
    changed = logits[:, 0] / cross_fitted(logits, wrong)[0][:, 0]
    np.testing.assert_allclose(changed[half == 0], ratios[0], atol=1e-3)
    assert changed[half == 1].min() > 2 * ratios[1]
    assert Scores(logits, labels, NAMES, trained_on=True).scaling is None
    assert halves.scaling[1].images == calibrate(Scores(fitted, labels, NAMES).probabilities,
                                                 labels).images  # fmt: skip


def test_mistakes_and_hits_are_ranked_by_confidence():
    logits = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7], [0.4, 0.6]]))
    scores = Scores(logits.astype(np.float32), np.array([0, 0, 0, 0, 1]), ("a", "b"))
    assert scores.mistakes.tolist() == [1, 3] and scores.hits.tolist() == [2, 4, 0]
    assert scores.top5 is None and confusions(scores, 3) == "a taken for b (2)"


def test_json_has_no_nan(scores):
    figures = json.loads(json.dumps(scores.as_json("test"), allow_nan=False))
    assert figures["test_accuracy"] == scores.accuracy and figures["images"] == 300
    assert figures["classes"]["class 0"]["images"] == (scores.labels == 0).sum()
    assert figures["classes"]["class 7"]["recall"] is None
    assert np.array(figures["confusion"]).sum() == 300


def test_mcnemar_is_the_binomial_tail():
    labels = np.zeros(40, int)
    first = np.eye(2)[[0] * 30 + [1] * 10]  # 10 wrong
    second = np.eye(2)[[0] * 22 + [1] * 8 + [0] * 2 + [1] * 8]  # 8 others wrong, 2 of these right
    both = [Scores(x.astype(np.float32), labels, ("a", "b")) for x in (first, second)]
    only_first, only_second, p = mcnemar(*both)
    tail = sum(math.comb(10, k) for k in range(3)) / 2**10
    assert (only_first, only_second) == (8, 2) and p == pytest.approx(2 * tail)
    assert mcnemar(both[0], both[0]) == (0, 0, 1.0)
