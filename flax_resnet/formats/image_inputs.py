"""Images by the names that a user gives: files, folders, patterns, lists, arrays of images."""

import concurrent.futures
import dataclasses
import functools
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flax_resnet.data.image_files import read_image, resize_and_crop
from flax_resnet.data.sources.npz import read_npz_images
from flax_resnet.formats.cifar_pickle import read_cifar_pickle
from flax_resnet.process.errors import UserError

_ENDS = {
    ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm",
    ".avif",
}  # fmt: skip
_THREADS = min(8, os.cpu_count() or 1)  # decoding does not hold Python's lock


@dataclasses.dataclass(frozen=True)
class Input:
    """An image that is still to be read.

    Attributes:
      name: its path; of an image in a file of many, its id there.
      read: gives the pixels, uint8 [height, width, 3], or raises UserError.
    """

    name: str
    read: Callable[[], np.ndarray]


def find_images(names: Iterable[str], standard_input: Iterable[str]) -> list[Input]:
    """What the names stand for, in their order.

    Args:
      names: image files; folders, searched with the folders in them; patterns such as 'a/*.png';
        .npz and .pkl files of many images; '-': names from the standard input, one a line.
      standard_input: is read for '-'.

    Raises:
      UserError: a folder or a pattern has no image, or a file of many cannot be read.
    """
    found: list[Input] = []
    for name in names:
        if name == "-":
            lines = [line.rstrip("\n") for line in standard_input]
            found += find_images([line for line in lines if line not in ("", "-")], standard_input)
        else:
            found += _find(name)
    return found


def _find(name: str) -> list[Input]:
    path = Path(name)
    if path.suffix == ".npz":
        images = read_npz_images(path)
        return [_of_array(f"{name}[{i}]", image) for i, image in enumerate(images)]
    if path.suffix in (".pkl", ".pickle"):
        images, ids = read_cifar_pickle(path)
        return [_of_array(i, image) for i, image in zip(ids, images, strict=True)]
    try:
        if name and path.is_dir():  # no name is not the working folder
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _ENDS)
        elif glob.has_magic(name) and not path.exists():
            files = sorted(map(Path, glob.glob(name, recursive=True)))
        else:
            return [_of_file(name)]
    except (OSError, ValueError):  # a name too long, or a folder that may not be read
        return [_of_file(name)]  # which says why
    if not files:
        raise UserError(f"{name} has no image files", code="missing", field=name)
    return [_of_file(str(file)) for file in files]


def _of_file(name: str) -> Input:
    return Input(name, functools.partial(read_image, name))


def _of_array(name: str, image: np.ndarray) -> Input:
    return Input(name, lambda: image)


def read_batches(
    inputs: Sequence[Input], height: int, width: int, size: int, share: float = 1.0
) -> Iterator[list[tuple[Input, np.ndarray | UserError]]]:
    """Batches of inputs with their pixels, of that height and width, or with what is wrong.

    Of each image the middle `share` is taken, in height and width.
    The next batch is read while one is in use.
    """

    def read(item: Input) -> tuple[Input, np.ndarray | UserError]:
        try:
            return item, resize_and_crop(item.read(), height, width, share)
        except UserError as error:
            return item, error

    starts = range(0, len(inputs), size)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        batches = (pool.map(read, inputs[start : start + size]) for start in starts)
        ahead = [next(batches)] if inputs else []
        while ahead:
            current = ahead.pop()
            ahead = list(itertools.islice(batches, 1))  # begins to be read here
            yield list(current)
