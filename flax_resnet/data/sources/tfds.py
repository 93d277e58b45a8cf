"""Finds, prepares and reads an image-classification set of TensorFlow Datasets (tfds)."""

import contextlib
import dataclasses
import fnmatch
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flax_resnet.data.cache import Identity, folder_state
from flax_resnet.data.dataset import Dataset, make_dataset, make_streamed
from flax_resnet.data.image_arrays import check_memory
from flax_resnet.data.sources.records import FORMATS, open_records
from flax_resnet.data.sources.tfds_download import download_tfds, import_tensorflow, missing_package
from flax_resnet.data.sources.tfds_reader import TfdsReader
from flax_resnet.data.streaming import StreamedImages
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import read_text
from flax_resnet.process.paths import expand_user

# "name", "name/config", "name:version" or "name/config:version", as tfds.load accepts it.
_NAME = re.compile(r"(?P<base>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>[\d.*]+))?")

# Training and validation images (Russakovsky et al. 2015, table 2), known without its files.
_IMAGENET_NUM_IMAGES = 1_281_167 + 50_000


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A set on disk: `folder` is data_dir/name[/config]/version."""

    data_dir: Path
    folder: Path

    @property
    def full_name(self) -> str:
        """The name with its version, by which `tfds.load` finds the files without asking."""
        return f"{self.folder.parent.relative_to(self.data_dir).as_posix()}:{self.folder.name}"


def tfds_data_dir(data_dir: str | None) -> Path:
    """The argument, else $TFDS_DATA_DIR, else tfds's own default; absolute."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expand_user(chosen, "config.data_dir").absolute()


def find_prepared(name: str, data_dir: Path) -> Prepared | None:
    """Finds a prepared set, whatever its file format, without importing tfds.

    Args:
        name: "name", "name/config", either with ":version" (1.2.3 or 1.*.*).
        data_dir: tfds's folder of prepared sets.

    Returns:
        The newest version that fits, or None.

    Raises:
        UserError: `name` is not of that form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"config.dataset: {name!r} is neither a file or folder nor a tfds name "
            "(name, name/config or name:version)",
            code="unknown",
            field="config.dataset",
        )
    folder = data_dir / match["base"]
    config = match["config"] or _default_config(folder)
    if config:
        folder /= config
    versions = []
    for info in folder.glob("*/dataset_info.json"):
        version = info.parent.name
        if re.fullmatch(r"\d+\.\d+\.\d+", version) and fnmatch.fnmatchcase(
            version, match["version"] or "*"
        ):
            versions.append((tuple(map(int, version.split("."))), info.parent))
    return Prepared(data_dir, max(versions)[1]) if versions else None


def _default_config(folder: Path) -> str | None:
    """The config that tfds uses when none is named; it records it beside the configs."""
    file = folder / ".config" / "metadata.json"
    try:
        metadata = json.loads(read_text(file))
        default = metadata.get("default_config_name")
        return default if isinstance(default, str) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def prepare_tfds(
    name: str, data_dir: Path, image_size: int | None, streams: bool = False
) -> Prepared:
    """Finds a set on disk or downloads it; see `find_prepared` and `download_tfds`.

    Args:
        name: of the set.
        data_dir: tfds's folder of prepared sets.
        image_size: side in pixels to which the images are to be resized.
        streams: whether the images may stay on disk.
    """
    prepared = find_prepared(name, data_dir)
    if prepared is not None:
        return prepared
    if name.split("/")[0].split(":")[0] == "imagenet2012":
        _check_imagenet(image_size, streams)
    download_tfds(name, data_dir)
    prepared = find_prepared(name, data_dir)
    if prepared is None:
        raise UserError(
            f"dataset {name!r}: tfds prepared it, but not in {data_dir}",
            code="missing",
            field="config.data_dir",
        )
    return prepared


def _check_imagenet(image_size: int | None, streams: bool) -> None:
    what, side = "imagenet2012", image_size
    if side is None:
        what, side = f"{what} (at 224, as config.image_size is not set)", 224
    if not streams:
        check_memory(what, _IMAGENET_NUM_IMAGES, (side, side))
    if image_size is None:
        raise UserError(
            "imagenet2012: its images differ in size; set config.image_size",
            field="config.image_size",
        )


def identify_tfds(name: str, prepared: Prepared, image_size: int | None) -> Identity:
    """The identity of a prepared set for the cache."""
    paths = list(prepared.folder.rglob("*"))
    for path in paths:  # tfds would wait for a pipe for ever
        if not path.is_file() and not path.is_dir():
            raise UserError(
                f"dataset {name!r}: {path} is not a regular file; remove it",
                code="unreadable",
                field=str(path),
            )
    files = [path for path in paths if path.is_file()]
    state = folder_state(files, prepared.data_dir)
    return Identity("tfds", name, str(prepared.data_dir), image_size, state)


def read_tfds(name: str, prepared: Prepared, image_size: int | None) -> Dataset:
    """Reads a prepared set with `tfds.load`, without the network.

    Args:
        name: what to call it.
        prepared: where it is.
        image_size: side in pixels to which the images are resized; None: their own size, the same
            for all.

    Raises:
        UserError: the set has no labeled images or lacks a split, its files are corrupt, or it
            does not fit in memory.
    """
    import_tensorflow()
    with _faults_of(name, prepared):
        reader = TfdsReader(name, prepared.full_name, str(prepared.data_dir), image_size)
        reader.check_features()
        splits = reader.splits()
        shape = reader.image_shape(splits[0])
        sizes = [reader.info.splits[split].num_examples for split in splits]
        check_memory(name, sum(sizes), shape)
        (train, train_labels), (test, test_labels) = (
            reader.read(split, size, shape) for split, size in zip(splits, sizes, strict=True)
        )
        class_names = tuple(reader.info.features["label"].names)
    source = f"{name} (tfds, {prepared.folder})"
    return make_dataset(
        (train, test), (train_labels, test_labels), class_names, origin=name, source=source
    )


def stream_tfds(
    name: str, prepared: Prepared, image_size: int | None, cache_dir: Path, native: bool = False
) -> Dataset:
    """The images that `read_tfds` reads, left in their files; without TensorFlow.

    PNGs are the same pixels; JPEGs are decoded by another version of the same library.

    Args:
        name: what to call it.
        prepared: where it is.
        image_size: see `read_tfds`.
        cache_dir: keeps where each record is, and its label.
        native: see `decode_box`.

    Raises:
        UserError: the set has no labeled images, lacks a split, is corrupt, or has files of a
            format without random access.
    """
    with _faults_of(name, prepared):
        reader = TfdsReader(name, prepared.full_name, str(prepared.data_dir), image_size)
        reader.check_features()
        file_format = reader.info.file_format.value
        if file_format not in FORMATS:
            raise UserError(
                f"dataset {name!r} is in {file_format} files, of which images cannot be read one "
                f"by one: prepare it as {' or '.join(FORMATS)}",
                field="config.data_loading",
            )
        key = identify_tfds(name, prepared, None).key
        images, labels, digests = [], [], []
        for split in reader.splits():
            info = reader.info.splits[split]
            files = [Path(path) for path in info.filepaths]
            cached = cache_dir / "indexes" / f"{prepared.folder.parent.name}-{split}-{key}.npz"
            records, index = open_records(files, file_format, info.num_examples, cached)
            images.append(
                StreamedImages(
                    records,
                    np.arange(info.num_examples),
                    reader.image_shape(split),
                    keeps_size=image_size is None,
                    native=native,
                )
            )
            labels.append(index.labels)
            digests.append(index.digest)
        class_names = tuple(reader.info.features["label"].names)
    return make_streamed(
        (images[0], images[1]),
        (labels[0], labels[1]),
        class_names,
        content="".join(digests),
        source=f"{name} (tfds, {prepared.folder})",
    )


@contextlib.contextmanager
def _faults_of(name: str, prepared: Prepared) -> Iterator[None]:
    """Makes an error in reading a set one of the user's."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # the reader of a file format, array_record for one
        raise missing_package(error) from error
    # Corrupt files come as errors of tfds, TensorFlow, protobuf ... with no class in common.
    except Exception as error:
        raise UserError(
            f"dataset {name!r}: tfds cannot read {prepared.folder} ({reason(error)}); remove that "
            "folder and prepare the dataset again",
            code="unreadable",
            field=str(prepared.folder),
        ) from error
