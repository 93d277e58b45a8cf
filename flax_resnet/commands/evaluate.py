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
    images, labels = load_test_images(model, args.workdir, args.data_dir)
    result = model.evaluate(images, labels)
    metrics = {"test_loss": result.loss, "test_accuracy": result.accuracy}
    text = f"test loss {result.loss:.4f}, accuracy {result.accuracy:.2%}"
    views = args.views or model.config.test_views
    if views != "none":
        viewed = model.evaluate(images, labels, views)
        metrics |= {"test_views_loss": viewed.loss, "test_views_accuracy": viewed.accuracy}
        text += f" ({viewed.accuracy:.2%} with {views} views)"
    if args.json:
        print(json.dumps({"step": model.step, "images": result.images} | metrics))
    else:
        print(f"step {model.step}: {text} of {result.images:,} images")
    return 0
