"""Reads a dataset from a folder of image files: train/CLASS/*.png and test/CLASS/*.png."""

import dataclasses
import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flax_resnet.data.cache import Identity, folder_state
from flax_resnet.data.dataset import Dataset, make_dataset, make_streamed
from flax_resnet.data.image_arrays import check_memory
from flax_resnet.data.image_files import read_bytes, read_image, resize_and_crop
from flax_resnet.data.names import check_name
from flax_resnet.data.streaming import StreamedImages
from flax_resnet.process.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif")

_READ_AHEAD = 256  # images: enough for the threads, little beside the dataset


def identify_folder(folder: Path, image_size: int | None) -> Identity:
    """The identity of a folder of images for the cache."""
    folder = folder.absolute()
    files = [
        file
        for split in ("train", "test")
        for class_files in _class_files(folder, split).values()
        for file in class_files
    ]
    return Identity("folder", folder.name, str(folder), image_size, folder_state(files, folder))


def read_folder(folder: Path, image_size: int | None) -> Dataset:
    """Reads a folder of images.

    A class is a folder in train/; the classes are numbered in the order of their names. The
    images of a split take turns between the classes, so that its first images show every class.

    Args:
        folder: holds train/CLASS/ and test/CLASS/ with image files; hidden files are skipped.
        image_size: side in pixels to which the images are resized; None: their own size, the same
            for all.

    Raises:
        UserError: a folder or image is missing, corrupt or of another size; it is named.
    """
    class_names, listed = _listed(folder)
    height, width = _size(listed, image_size)
    check_memory(str(folder), len(listed[0]) + len(listed[1]), (height, width))
    images = [
        _read_images([path for path, _ in split], (height, width), image_size) for split in listed
    ]
    labels = [np.array([label for _, label in split], np.int32) for split in listed]
    return make_dataset(
        (images[0], images[1]),
        (labels[0], labels[1]),
        class_names,
        origin=str(folder),
        source=_source(folder),
    )


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files by number."""

    paths: tuple[str, ...]  # a Path takes several times the memory of its text

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, number: int) -> bytes:
        """The content of a file."""
        return read_bytes(self.paths[number])

    def name(self, number: int) -> str:
        """Its path."""
        return self.paths[number]


def stream_folder(folder: Path, image_size: int | None, native: bool = False) -> Dataset:
    """The images that `read_folder` reads, left on disk.

    Raises:
        UserError: a folder is missing, or the first image cannot be read.
    """
    class_names, listed = _listed(folder)
    size = _size(listed, image_size)
    content = hashlib.sha256()
    for path, _ in (*listed[0], *listed[1]):
        content.update(os.fsencode(f"{path.relative_to(folder)} {path.stat().st_size}\n"))
    train, test = (
        StreamedImages(
            Files(tuple(str(path) for path, _ in split)),
            np.arange(len(split)),
            size,
            keeps_size=image_size is None,
            native=native,
        )
        for split in listed
    )
    labels = [np.array([label for _, label in split], np.int32) for split in listed]
    return make_streamed(
        (train, test),
        (labels[0], labels[1]),
        class_names,
        content=content.hexdigest(),
        source=_source(folder),
    )


def _source(folder: Path) -> str:
    return f"{folder.absolute().name} (folder, {folder.absolute()})"


def _listed(folder: Path) -> tuple[tuple[str, ...], list[list[tuple[Path, int]]]]:
    """The classes, and file and label of each training and each test image, in order."""
    train, test = _class_files(folder, "train"), _class_files(folder, "test")
    class_names = tuple(train)
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise UserError(
            f"{folder}/test/{unknown[0]}: no such class in {folder}/train; add it there",
            code="unknown",
            field=str(folder),
        )
    return class_names, [_in_turns(split, class_names) for split in (train, test)]


def _size(listed: list[list[tuple[Path, int]]], image_size: int | None) -> tuple[int, int]:
    """(height, width) of the images, by the first of them where it is not set."""
    height, width, _ = read_image(listed[0][0][0]).shape
    return (height, width) if image_size is None else (image_size, image_size)


def _class_files(folder: Path, split: str) -> dict[str, list[Path]]:
    """The image files of each class of a split, classes and files sorted by name."""
    split_folder = folder / split
    if not split_folder.is_dir():
        raise _missing(folder, f"has no folder {split}/; it needs train/CLASS/ and test/CLASS/")
    files = {
        class_folder.name: [
            path for path in _visible(class_folder) if path.suffix.lower() in SUFFIXES
        ]
        for class_folder in _visible(split_folder)
        if class_folder.is_dir()
    }
    if not files:
        raise _missing(split_folder, f"has no class folders; put images into {split}/CLASS/")
    for name, paths in files.items():
        check_name(name, f"{split_folder}: the class folder", str(split_folder))
        if not paths:
            kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
            raise _missing(split_folder / name, f"has no images ({kinds}); add some")
    return files


def _missing(folder: Path, fault: str) -> UserError:
    return UserError(f"{folder}: {fault}", code="missing", field=str(folder))


def _visible(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(visible, key=lambda path: path.name)  # five times faster than whole paths


def _in_turns(files: dict[str, list[Path]], class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    """(file, label): the first file of every class, then the second of every class, ..."""
    label_of = {name: label for label, name in enumerate(class_names)}
    columns = [[(path, label_of[name]) for path in paths] for name, paths in files.items()]
    rows = itertools.zip_longest(*columns)
    return [pair for row in rows for pair in row if pair is not None]


def _read_images(paths: list[Path], shape: tuple[int, int], image_size: int | None) -> np.ndarray:
    """uint8 [len(paths), *shape, 3]; with `image_size` None every image must have the shape."""

    def read(path: Path) -> np.ndarray:
        image = read_image(path)
        if image_size is not None:
            return resize_and_crop(image, *shape)
        if image.shape[:2] != shape:
            raise UserError(
                f"{path}: is {image.shape[0]}x{image.shape[1]} but the first image is "
                f"{shape[0]}x{shape[1]}; set config.image_size",
                code="conflict",
                field="config.image_size",
            )
        return image

    images = np.empty((len(paths), *shape, 3), np.uint8)
    # Threads, because Pillow decodes without holding Python's lock; in portions, because map() on
    # all paths would hold every decoded image at once.
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _READ_AHEAD):
            portion = paths[start : start + _READ_AHEAD]
            for index, image in enumerate(pool.map(read, portion), start):
                images[index] = image
    return images
