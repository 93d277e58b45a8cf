"""The classes that a trained network sees in image files."""

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np

from flax_resnet.data.image_files import read_image, resize_and_crop
from flax_resnet.inference.model import Model, load
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.errors import UserError, printable
from flax_resnet.process.paths import default_cache_dir


def run(args: argparse.Namespace) -> int:
    """Prints the likeliest classes of each file; 2 if a file could not be read."""
    keep_compiled(default_cache_dir())
    model = load(args.workdir, args.checkpoint)
    failed = False
    size = model.config.eval_batch_size
    for start in range(0, len(args.images), size):
        for path, answer in _answer(model, args.images[start : start + size]):
            failed |= isinstance(answer, UserError)
            _print(path, answer, model.class_names, args)
    return 2 if failed else 0


def _answer(model: Model, paths: list[str]) -> Iterator[tuple[str, np.ndarray | UserError]]:
    """Probabilities of each file that can be read, in one batch; the error of each other."""
    height, width, _ = model.image_shape
    read: list[np.ndarray | UserError] = []
    for path in paths:
        try:
            read.append(resize_and_crop(read_image(path), height, width))
        except UserError as error:
            read.append(error)
    images = [image for image in read if isinstance(image, np.ndarray)]
    scores = iter(model.probabilities(np.stack(images)) if images else [])
    for path, image in zip(paths, read, strict=True):
        yield path, image if isinstance(image, UserError) else next(scores)


def _print(
    path: str,
    answer: np.ndarray | UserError,
    names: tuple[str, ...],
    args: argparse.Namespace,
) -> None:
    if isinstance(answer, UserError):
        if args.json:
            print(json.dumps({"file": path, "error": str(answer)}))
        else:
            print(f"error: {answer}", file=sys.stderr)
        return
    best = [(names[i], float(answer[i])) for i in np.argsort(-answer)[: args.top]]
    if args.json:
        classes = [{"class": name, "probability": score} for name, score in best]
        print(json.dumps({"file": path, "predictions": classes}))
        return
    print(printable(path))
    width = max(len(name) for name, _ in best)
    for name, score in best:
        print(f"  {name:{width}}  {score:7.2%}")
