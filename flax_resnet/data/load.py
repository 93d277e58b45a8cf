"""Loads any dataset by name into memory: tfds sets, the digits, .npz files, image folders."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flax_resnet.data.cache import Identity, default_cache_dir, load_or_build
from flax_resnet.data.dataset import Dataset
from flax_resnet.data.sources.cifar10_archive import identify_archive, read_cifar10_archive
from flax_resnet.data.sources.digits import identify_digits, read_digits
from flax_resnet.data.sources.folder import identify_folder, read_folder
from flax_resnet.data.sources.npz import identify_npz, read_npz
from flax_resnet.data.sources.tfds import (
    expand_user,
    identify_tfds,
    prepare_tfds,
    read_tfds,
    tfds_data_dir,
)
from flax_resnet.process.errors import UserError, reason

__all__ = ["Dataset", "load_dataset"]


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    archive: str | None = None,
    image_size: int | None = None,
    cache_dir: Path | None = None,
    log: Callable[[str], None] = print,
    memory_limit: int | None = None,
) -> Dataset:
    """Loads a dataset, from the cache of decoded arrays where it holds it.

    Args:
        name: a tfds set ("cifar10", "name/config", "name:version"), "digits", a path that ends in
            .npz, or a folder with train/CLASS/ and test/CLASS/.
        data_dir: where tfds keeps prepared sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
        archive: path of the official cifar-10-binary.tar.gz; only for "cifar10".
        image_size: side in pixels: the shorter side is resized to it and the middle square kept;
            None: the images' own size, which must be one.
        cache_dir: None: $FLAX_RESNET_CACHE, or flax_resnet in the user's cache folder.
        log: receives lines about downloads and a damaged or unwritable cache.
        memory_limit: the most bytes the images may take; None: half of the available memory.

    Raises:
        UserError: anything wrong with the arguments, the files or the network.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"config.image_size: {image_size} is below 1; give a side in pixels")
    try:
        identify, build = _choose_source(name, data_dir, archive, image_size, memory_limit, log)
        return load_or_build(identify, build, cache_dir or default_cache_dir(), log)
    # A folder without permission, a name too long, a link to nowhere, a file removed meanwhile.
    except OSError as error:
        raise UserError(f"config.dataset: {name} cannot be read ({reason(error)})") from error


def _choose_source(
    name: str,
    data_dir: str | None,
    archive: str | None,
    image_size: int | None,
    memory_limit: int | None,
    log: Callable[[str], None],
) -> tuple[Callable[[], Identity], Callable[[], Dataset]]:
    """How to identify and how to read the dataset; a tfds set is prepared first."""
    if archive is not None:
        file = _archive_path(name, archive)
        return (
            partial(identify_archive, file, image_size),
            partial(read_cifar10_archive, file, image_size, memory_limit),
        )
    if name == "digits":
        read = partial(read_digits, image_size, memory_limit)
        return partial(identify_digits, image_size), read
    path = _as_path(name)
    if path is None:
        prepared = prepare_tfds(name, tfds_data_dir(data_dir), image_size, memory_limit, log)
        return (
            partial(identify_tfds, name, prepared, image_size),
            partial(read_tfds, name, prepared, image_size, memory_limit),
        )
    identify, read = (identify_folder, read_folder) if path.is_dir() else (identify_npz, read_npz)
    return partial(identify, path, image_size), partial(read, path, image_size, memory_limit)


def _archive_path(name: str, archive: str) -> Path:
    if name.split(":")[0] != "cifar10":
        raise UserError(f"config.archive is for dataset 'cifar10' only, not {name!r}; leave it out")
    path = expand_user(archive, "config.archive")
    if not path.is_file():
        raise UserError(f"config.archive: {archive} does not exist or is no file; check the path")
    return path


def _as_path(name: str) -> Path | None:
    """The file or folder that a dataset's name means, or None for the name of a tfds set."""
    path = expand_user(name, "config.dataset")
    looks_like_path = name.startswith((os.sep, f".{os.sep}", f"..{os.sep}", "~"))
    if path.is_file() or name.endswith(".npz"):
        if not name.endswith(".npz"):
            raise UserError(
                f"config.dataset: {name} is a file but no .npz; give a .npz or a folder"
            )
        if not path.is_file():
            raise UserError(f"config.dataset: {name} does not exist or is no file; check the path")
        return path
    # A folder that merely shares its plain name with a tfds set, as a run's folder "cifar10" may,
    # does not hide the set.
    if path.is_dir() and (looks_like_path or os.sep in name or (path / "train").is_dir()):
        return path
    if looks_like_path:
        raise UserError(f"config.dataset: {name} does not exist; check the path")
    return None
