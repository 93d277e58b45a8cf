"""The images that a trained run is judged on, and those that it held out."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32
from numpy import ndarray

from flax_resnet.data.dataset import STREAMED, Dataset
from flax_resnet.data.load import load_dataset
from flax_resnet.data.streaming import Images, middle
from flax_resnet.inference.model import Model
from flax_resnet.process.errors import UserError

Labelled = tuple[Images, Int32[ndarray, " n"]]
SPLITS = {"test": "test", "validation": "val", "train": "train"}  # name -> that of its metrics


def load_test_images(model: Model, workdir: str | Path, data_dir: str | None = None) -> Labelled:
    """Images and labels that the run in `workdir` tests on.

    Args:
      model: loaded from the run.
      workdir: its folder, for the message.
      data_dir: where tfds keeps its data; None: where the run's config says.

    Raises:
      UserError: the data set cannot be read, or is another than the run was trained on.
    """
    return load_splits(model, workdir, data_dir)["test"]


def load_splits(
    model: Model, workdir: str | Path, data_dir: str | None = None
) -> dict[str, Labelled]:
    """Images and labels of each of the run's splits, by their names in SPLITS.

    Raises:
      UserError: as load_test_images.
    """
    config = model.config
    dataset = load_dataset(
        config.dataset,
        data_dir=data_dir or config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
        loading="stream" if model.data.digest.startswith(STREAMED) else "memory",
    )
    known = dataset.digest == model.data.digest
    if not model.data.digest:  # imported weights
        classes = len(model.class_names)
        known = (dataset.num_classes, dataset.image_shape) == (classes, model.image_shape)
    if not known:
        raise UserError(
            f"{dataset.source} does not hold the images that {workdir} was trained on",
            code="conflict",
            field="config.dataset",
        )
    dataset = dataset.first(config.train_images, config.test_images)
    held_out = {}
    if config.validation_split:
        dataset, *validation = dataset.split_validation(config.validation_split, config.seed)
        held_out["validation"] = middle(validation[0], config.eval_crop), validation[1]
    return _splits(dataset, config.eval_crop) | held_out


def load_other(model: Model, name: str, data_dir: str | None = None) -> dict[str, Labelled]:
    """Images and labels of another data set with the run's classes, by split.

    Labels follow the class names where both have the same; a set without names ("0", "1", ...) is
    taken to have the run's order. Images are resized to the run's, if those are square.

    Args:
      model: the run's.
      name: as config.dataset.
      data_dir: where tfds keeps its data.

    Raises:
      UserError: the data set cannot be read, or has other classes.
    """
    height, width, _ = model.image_shape
    image_size = height if height == width else None
    dataset = load_dataset(name, data_dir=data_dir, image_size=image_size, loading="auto")
    names, others = model.class_names, dataset.class_names
    splits = _splits(dataset, model.config.eval_crop)
    unnamed = tuple(str(number) for number in range(min(len(others), len(names))))
    if others in (names, unnamed):
        return splits
    if not set(others) <= set(names):
        strange = next(other for other in others if other not in names)
        raise UserError(
            f"--dataset {name} has the class {strange!r}, which the run does not know",
            code="conflict",
            field="--dataset",
        )
    place = np.array([names.index(other) for other in others], np.int32)
    return {split: (images, place[labels]) for split, (images, labels) in splits.items()}


def _splits(dataset: Dataset, share: float) -> dict[str, Labelled]:
    return {
        "test": (middle(dataset.test_images, share), dataset.test_labels),
        "train": (middle(dataset.train_images, share), dataset.train_labels),
    }
