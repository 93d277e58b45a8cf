"""The classes that a trained network sees in images."""

import argparse
import contextlib
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flax_resnet.formats.image_inputs import Input, find_images, read_batches
from flax_resnet.inference.model import Model, load
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.errors import UserError, printable
from flax_resnet.process.files import replacing
from flax_resnet.process.output import STDERR
from flax_resnet.process.paths import default_cache_dir

Answer = tuple[str, np.ndarray | UserError]  # the image's name; probabilities, or what is wrong


def run(args: argparse.Namespace) -> int:
    """Writes the likeliest classes of each image; 2 if one could not be read."""
    keep_compiled(default_cache_dir())
    model = load(args.workdir, args.checkpoint)
    inputs = find_images(args.images, sys.stdin)
    if args.format == "kaggle" and not args.output:
        raise UserError("--format kaggle needs --output FILE", code="missing", field="--output")
    with _output(args.output) as file:
        writer = WRITERS[args.format](file, model.class_names, args.top)
        failed = False
        for name, answer in _answers(model, inputs, show_bar=bool(args.output)):
            if isinstance(answer, UserError):
                if args.format == "kaggle":
                    raise answer  # a submission must have every image
                failed = True
                writer.error(name, answer)
            else:
                writer.answer(name, answer)
    return 2 if failed else 0


def _answers(model: Model, inputs: list[Input], show_bar: bool) -> Iterator[Answer]:
    height, width, _ = model.image_shape
    hidden = not (STDERR.isatty() and (show_bar or not sys.stdout.isatty()))
    with tqdm(total=len(inputs), unit=" images", file=STDERR, disable=hidden, leave=False) as bar:
        size, share = model.config.eval_batch_size, model.config.eval_crop
        for batch in read_batches(inputs, height, width, size, share):
            images = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
            scores = iter(model.probabilities(np.stack(images)) if images else [])
            for item, pixels in batch:
                yield item.name, pixels if isinstance(pixels, UserError) else next(scores)
            bar.update(len(batch))


@contextlib.contextmanager
def _output(name: str | None) -> Iterator[Any]:
    if name is None:
        yield sys.stdout
        return
    with (
        replacing(Path(name)) as part,
        open(part, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield file


class TextWriter:
    """A heading for each image, and a class a line."""

    def __init__(self, file: Any, class_names: tuple[str, ...], top: int) -> None:
        self.file, self.class_names, self.top = file, class_names, top

    def best(self, scores: np.ndarray) -> list[tuple[str, float]]:
        """The likeliest classes with their probabilities."""
        return [(self.class_names[i], float(scores[i])) for i in np.argsort(-scores)[: self.top]]

    def error(self, name: str, error: UserError) -> None:
        """Says on stderr why an image has no answer."""
        print(f"error: {error}", file=sys.stderr)

    def answer(self, name: str, scores: np.ndarray) -> None:
        """Writes what an image shows."""
        best = self.best(scores)
        width = max(len(name) for name, _ in best)
        print(printable(name), file=self.file)
        for label, score in best:
            print(f"  {label:{width}}  {score:7.2%}", file=self.file)


class JsonWriter(TextWriter):
    """An object a line."""

    def error(self, name: str, error: UserError) -> None:
        """Writes it as an object, too."""
        print(json.dumps({"file": name, "error": str(error)}), file=self.file)

    def answer(self, name: str, scores: np.ndarray) -> None:
        """Writes what an image shows."""
        classes = [{"class": label, "probability": score} for label, score in self.best(scores)]
        print(json.dumps({"file": name, "predictions": classes}), file=self.file)


class CsvWriter(TextWriter):
    """A row for each image: its name, then classes and probabilities in turn."""

    def __init__(self, file: Any, class_names: tuple[str, ...], top: int) -> None:
        super().__init__(file, class_names, top)
        self.rows = csv.writer(file, lineterminator="\n")
        self.rows.writerow(self.header())

    def header(self) -> list[str]:
        """The names of the columns."""
        numbers = range(1, min(self.top, len(self.class_names)) + 1)
        return ["file", *(f"{what}{i}" for i in numbers for what in ("class", "probability"))]

    def answer(self, name: str, scores: np.ndarray) -> None:
        """Writes what an image shows."""
        cells: list[Any] = [name]
        for label, score in self.best(scores):
            cells += [label, f"{score:.6f}"]
        self.rows.writerow(cells)


class KaggleWriter(CsvWriter):
    """What NYU's competition takes: the image's id and the number of its class."""

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["ID", "Labels"]

    def answer(self, name: str, scores: np.ndarray) -> None:
        """Writes what an image shows."""
        self.rows.writerow([name, int(scores.argmax())])


WRITERS: dict[str, type[TextWriter]] = {
    "text": TextWriter,
    "json": JsonWriter,
    "csv": CsvWriter,
    "kaggle": KaggleWriter,
}
