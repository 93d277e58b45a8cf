"""Loss and accuracy of a trained run on its test images."""

import argparse
import json

from flax_resnet.inference.model import load
from flax_resnet.inference.test_images import load_test_images
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.paths import default_cache_dir


def run(args: argparse.Namespace) -> int:
    """Prints loss, accuracy and the number of images."""
    keep_compiled(default_cache_dir())
    model = load(args.workdir, args.checkpoint)
    result = model.evaluate(*load_test_images(model, args.workdir, args.data_dir))
    if args.json:
        metrics = {"test_loss": result.loss, "test_accuracy": result.accuracy}
        print(json.dumps({"step": model.step, "images": result.images} | metrics))
    else:
        print(
            f"step {model.step}: test loss {result.loss:.4f}, accuracy {result.accuracy:.2%} "
            f"of {result.images:,} images"
        )
    return 0
