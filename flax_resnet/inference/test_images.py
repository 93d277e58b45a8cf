"""The test images of a trained run."""

from pathlib import Path

from jaxtyping import Int32, UInt8
from numpy import ndarray

from flax_resnet.data.load import load_dataset
from flax_resnet.inference.model import Model
from flax_resnet.process.errors import UserError


def load_test_images(
    model: Model, workdir: str | Path, data_dir: str | None = None
) -> tuple[UInt8[ndarray, "n height width 3"], Int32[ndarray, " n"]]:
    """Images and labels that the run in `workdir` tests on.

    Args:
      model: loaded from the run.
      workdir: its folder, for the message.
      data_dir: where tfds keeps its data; None: where the run's config says.

    Raises:
      UserError: the data set cannot be read, or is another than the run was trained on.
    """
    config = model.config
    dataset = load_dataset(
        config.dataset,
        data_dir=data_dir or config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
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
    return dataset.test_images, dataset.test_labels
