"""Runs judged: loaded, shown their images, scored."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flax_resnet.data.streaming import Images, select
from flax_resnet.inference.model import Model, load
from flax_resnet.inference.test_images import SPLITS, load_other, load_splits
from flax_resnet.judging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from flax_resnet.judging.scores import Scores
from flax_resnet.process.errors import UserError
from flax_resnet.process.output import STDERR
from flax_resnet.runs.checkpoints import Which

_AT_ONCE = 1000  # images that are corrupted at a time: as floats they need a lot of memory


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """A run and its answers.

    Attributes:
      workdir: its folder.
      model: its network.
      images: uint8 [N, height, width, 3].
      scores: of them.
      split: whose images they are, as the metrics name it.
      dataset: another data set than the run's own; None: the run's.
      views: name of test-time views -> scores of the mean over them.
      corrupted: corruption -> accuracy at each severity.
    """

    workdir: Path
    model: Model
    images: Images
    scores: Scores
    split: str
    dataset: str | None
    views: Mapping[str, Scores]
    corrupted: Mapping[str, tuple[float, ...]]


def judge(
    workdir: str | Path,
    *,
    checkpoint: Which = "last",
    dataset: str | None = None,
    split: str = "test",
    data_dir: str | None = None,
    first: int | None = None,
    views: str | None = None,
    corruptions: bool = False,
) -> Judged:
    """Judges a run.

    Args:
      workdir: its folder.
      checkpoint: 'last' or 'best'.
      dataset: another data set with its classes; None: its own.
      split: of SPLITS.
      data_dir: where tfds keeps its data; None: where the run's config says.
      first: how many images to take; None: all.
      views: also judge the mean over these views; None: over config.test_views.
      corruptions: also measure the accuracy on corrupted images.

    Raises:
      UserError: the run or the images cannot be loaded, or there is no such split.
    """
    model = load(workdir, checkpoint)
    if dataset is None:
        splits = load_splits(model, workdir, data_dir)
    else:
        splits = load_other(model, dataset, data_dir)
    if split not in splits:
        raise UserError(
            f"--split {split}: {dataset or workdir} has only {' and '.join(splits)} images",
            code="missing",
            field="--split",
        )
    images, labels = splits[split]
    images, labels = select(images, slice(first)), labels[:first]
    trained_on = split == "train" and dataset is None
    held_out = None
    if split == "test" and "validation" in splits:
        held_out = model.logits(splits["validation"][0]), splits["validation"][1]

    def score(views: str) -> Scores:
        logits = model.logits(images, views)
        return Scores(logits, labels, model.class_names, held_out, trained_on)

    views = views or model.config.test_views
    return Judged(
        Path(workdir),
        model,
        images,
        score("none"),
        SPLITS[split],
        dataset,
        {} if views == "none" else {views: score(views)},
        _corrupted(model, images, labels) if corruptions else {},
    )


def _corrupted(model: Model, images: Images, labels: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Accuracy under each corruption at each severity, with a bar on a terminal."""

    def accuracy(name: str, severity: int) -> float:
        parts = [slice(at, at + _AT_ONCE) for at in range(0, len(images), _AT_ONCE)]
        answers = [model.predict(corrupt(images[part], name, severity)) for part in parts]
        return float((np.concatenate(answers) == labels).mean())

    names = tqdm(CORRUPTIONS, file=STDERR, disable=not STDERR.isatty(), leave=False)
    return {name: tuple(accuracy(name, severity) for severity in SEVERITIES) for name in names}
