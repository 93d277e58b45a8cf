"""The classes that a trained network sees in image files."""

import argparse
import json
import sys
from typing import Any

from flax_resnet.commands.arguments import add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_run(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files of any size")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="a JSON object a file and line")


def run(args: argparse.Namespace) -> int:
    """Prints the likeliest classes of each file; 2 if a file could not be read."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from flax_resnet.config.build import build_model
    from flax_resnet.data.cache import default_cache_dir
    from flax_resnet.data.image_files import read_image, resize_and_crop
    from flax_resnet.engine.steps import make_normalize
    from flax_resnet.inference.model import load_trained
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.errors import UserError

    if args.top < 1:
        raise UserError(f"--top is {args.top}: it must be a whole number from 1 on")
    keep_compiled(default_cache_dir())
    trained = load_trained(args.workdir, args.checkpoint)
    names = trained.data.class_names
    model = build_model(trained.config, len(names))
    normalize = make_normalize(trained.config.mean, trained.config.std)

    @jax.jit
    def probabilities(images: jax.Array) -> jax.Array:
        logits: Any = model.apply(trained.variables, normalize(images))
        return jax.nn.softmax(logits)

    side = trained.data.image_shape[0]
    failed = False
    for path in args.images:
        try:
            image = resize_and_crop(read_image(path), side)
        except UserError as error:
            failed = True
            if args.json:
                print(json.dumps({"file": path, "error": str(error)}))
            else:
                print(f"error: {error}", file=sys.stderr)
            continue
        scores = np.asarray(probabilities(jnp.asarray(image[None])))[0]
        best = [(names[i], float(scores[i])) for i in np.argsort(-scores)[: args.top]]
        if args.json:
            classes = [{"class": name, "probability": score} for name, score in best]
            print(json.dumps({"file": path, "predictions": classes}))
        else:
            print(path)
            width = max(len(name) for name, _ in best)
            for name, score in best:
                print(f"  {name:{width}}  {score:7.2%}")
    return 2 if failed else 0
