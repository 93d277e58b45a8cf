"""Loads any dataset by name: tfds sets, the digits, .npz files, image folders."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from flax_resnet.data.cache import Identity, load_or_build
from flax_resnet.data.dataset import Dataset
from flax_resnet.data.names import check_name
from flax_resnet.data.sources.cifar10_archive import identify_archive, read_cifar10_archive
from flax_resnet.data.sources.digits import identify_digits, read_digits
from flax_resnet.data.sources.folder import identify_folder, read_folder, stream_folder
from flax_resnet.data.sources.npz import identify_npz, read_npz
from flax_resnet.data.sources.tfds import (
    identify_tfds,
    prepare_tfds,
    read_tfds,
    stream_tfds,
    tfds_data_dir,
)
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.paths import default_cache_dir, expand_user

logger = logging.getLogger(__name__)

Loading = Literal["auto", "memory", "stream"]
# How to identify a dataset, how to read it, and how to leave it on disk, if that can be done.
Source = tuple[Callable[[], Identity], Callable[[], Dataset], Callable[[], Dataset] | None]


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    archive: str | None = None,
    image_size: int | None = None,
    cache_dir: Path | None = None,
    loading: Loading = "memory",
    native: bool = False,
) -> Dataset:
    """Loads a dataset into memory, from the cache of decoded arrays if it is there; or streams it.

    Args:
        name: a tfds set ("cifar10", "name/config", "name:version"), "digits", a path that ends in
            .npz, or a folder with train/CLASS/ and test/CLASS/.
        data_dir: where tfds keeps prepared sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
        archive: path of the official cifar-10-binary.tar.gz; only for "cifar10".
        image_size: side in pixels: the shorter side is resized to it and the middle square kept;
            None: the images' own size, which must be the same for all.
        cache_dir: None: `default_cache_dir`.
        loading: 'stream' leaves the images on disk (folders and tfds sets only); 'auto' does so
            where they would take more than half of the available memory.
        native: of a streamed set, see `decode_box`.

    Raises:
        UserError: anything wrong with the arguments, the files or the network, or too little
            memory for the images.
    """
    for path, field in (
        (name, "config.dataset"),
        (data_dir, "config.data_dir"),
        (archive, "config.archive"),
    ):
        if path is not None:
            check_name(path, f"{field}: the name", field)
    if image_size is not None and image_size < 1:
        raise UserError(
            f"config.image_size: {image_size} is below 1; set the side in pixels",
            field="config.image_size",
        )
    try:
        cache_dir = cache_dir or default_cache_dir()
        source = _choose_source(name, data_dir, archive, image_size, cache_dir, loading, native)
        return _load(name, source, cache_dir, loading)
    # A folder without permission, a name too long, a broken link, a file removed meanwhile.
    except OSError as error:
        raise UserError(
            f"config.dataset: {name} cannot be read ({reason(error)})",
            code="unreadable",
            field="config.dataset",
        ) from error


def _load(name: str, source: Source, cache_dir: Path, loading: Loading) -> Dataset:
    identify, build, stream = source
    if loading == "stream":
        if stream is None:
            raise UserError(
                f"config.data_loading: {name} is read whole; stream takes a folder or a tfds set",
                field="config.data_loading",
            )
        return stream()
    try:
        return load_or_build(identify, build, cache_dir)
    except UserError as error:
        if loading == "memory" or stream is None or error.code != "out_of_memory":
            raise
        logger.info("%s: streaming them from disk", str(error).partition(";")[0])
        return stream()


def _choose_source(
    name: str,
    data_dir: str | None,
    archive: str | None,
    image_size: int | None,
    cache_dir: Path,
    loading: Loading,
    native: bool,
) -> Source:
    """What the name means; a tfds set is prepared first."""
    if archive is not None:
        file = _archive_path(name, archive)
        return (
            partial(identify_archive, file, image_size),
            partial(read_cifar10_archive, file, image_size),
            None,
        )
    if name == "digits":
        return partial(identify_digits, image_size), partial(read_digits, image_size), None
    path = _as_path(name)
    if path is None:
        streams = loading != "memory"
        prepared = prepare_tfds(name, tfds_data_dir(data_dir), image_size, streams)
        return (
            partial(identify_tfds, name, prepared, image_size),
            partial(read_tfds, name, prepared, image_size),
            partial(stream_tfds, name, prepared, image_size, cache_dir, native),
        )
    if not path.is_dir():
        return partial(identify_npz, path, image_size), partial(read_npz, path, image_size), None
    return (
        partial(identify_folder, path, image_size),
        partial(read_folder, path, image_size),
        partial(stream_folder, path, image_size, native),
    )


def _archive_path(name: str, archive: str) -> Path:
    field = "config.archive"
    if name.split(":")[0] != "cifar10":
        raise UserError(
            f"{field} is for dataset 'cifar10' only, not {name!r}; leave it out", field=field
        )
    path = expand_user(archive, field)
    if not path.is_file():
        raise UserError(
            f"{field}: {archive} does not exist or is not a file; check the path",
            code="missing",
            field=field,
        )
    return path


def _as_path(name: str) -> Path | None:
    """The file or folder that a dataset's name means, or None for the name of a tfds set."""
    field = "config.dataset"
    path = expand_user(name, field)
    looks_like_path = name.startswith((os.sep, f".{os.sep}", f"..{os.sep}", "~"))
    if name.endswith(".npz"):
        if not path.is_file():
            raise UserError(
                f"{field}: {name} does not exist or is not a file; check the path",
                code="missing",
                field=field,
            )
        return path
    # A folder that only shares its name with a tfds set, as a run's folder "cifar10" may, does not
    # hide the set.
    if path.is_dir() and (looks_like_path or os.sep in name or (path / "train").is_dir()):
        return path
    if path.exists() and not path.is_dir():
        raise UserError(
            f"{field}: {name} is neither a .npz file nor a folder; use one of those", field=field
        )
    if looks_like_path:
        raise UserError(
            f"{field}: {name} does not exist; check the path", code="missing", field=field
        )
    return None
