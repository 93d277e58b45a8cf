"""Loss and accuracy of a trained run on its test images."""

import argparse
import json

from flax_resnet.data.load import load_dataset
from flax_resnet.inference.model import load
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.errors import UserError
from flax_resnet.process.paths import default_cache_dir


def run(args: argparse.Namespace) -> int:
    """Prints loss, accuracy and the number of images."""
    keep_compiled(default_cache_dir())
    model = load(args.workdir, args.checkpoint)
    config = model.config
    dataset = load_dataset(
        config.dataset,
        data_dir=args.data_dir or config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
    )
    if dataset.digest != model.data.digest:
        raise UserError(
            f"{dataset.source} does not hold the images that {args.workdir} was trained on",
            code="conflict",
            field="config.dataset",
        )
    dataset = dataset.first(config.train_images, config.test_images)
    result = model.evaluate(dataset.test_images, dataset.test_labels)
    if args.json:
        metrics = {"test_loss": result.loss, "test_accuracy": result.accuracy}
        print(json.dumps({"step": model.step, "images": result.images} | metrics))
    else:
        print(
            f"step {model.step}: test loss {result.loss:.4f}, accuracy {result.accuracy:.2%} "
            f"of {result.images:,} images"
        )
    return 0
