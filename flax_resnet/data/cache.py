"""Keeps decoded datasets on disk, so that the second run starts at once.

One folder per dataset: four .npy files and meta.json. The folder's name ends in a hash of
everything that the content depends on (`Identity`), so a changed source gets another folder.
"""

import dataclasses
import hashlib
import json
import logging
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.data.dataset import Dataset
from flax_resnet.data.image_arrays import check_bytes
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import read_text

logger = logging.getLogger(__name__)

# Raise it when a change to this program changes the pixels, labels or names of the same source, or
# the form of an entry.
DECODER_VERSION = 2

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a dataset's content depends on.

    Attributes:
        kind: "tfds", "npz", "folder", "archive" or "digits".
        name: the dataset as the user named it.
        place: absolute path of its file or folder; "" for digits.
        image_size: side in pixels to which the images are resized; None: their own.
        state: what changes with the content: `file_state` of each file, or a version.
    """

    kind: str
    name: str
    place: str
    image_size: int | None
    state: tuple[Any, ...]

    @property
    def key(self) -> str:
        """Hash of everything."""
        return _short_hash([DECODER_VERSION, *dataclasses.astuple(self)])

    @property
    def slot(self) -> str:
        """Hash of all but the state: of two entries with one slot the older one is stale."""
        return _short_hash([self.kind, self.name, self.place, self.image_size])

    @property
    def folder_name(self) -> str:
        """Name of the entry's folder."""
        name = self.name if self.kind in ("tfds", "digits", "archive") else Path(self.place).stem
        return f"{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40].strip('_') or 'data'}-{self.key}"


def _short_hash(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def file_state(path: Path, base: Path) -> tuple[str, int, int, int, int]:
    """What changes when a file is edited or replaced: path below `base`, size, times, inode.

    The time of the last change (ctime) and the inode are there because the time of the last
    modification (mtime) can be set back, as rsync and tar do.
    """
    stat = path.stat()
    relative = path.relative_to(base).as_posix()
    return relative, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def folder_state(files: Iterable[Path], base: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """`file_state` of many files, in a fixed order."""
    return tuple(sorted(file_state(path, base) for path in files))


def load_or_build(
    identify: Callable[[], Identity], build: Callable[[], Dataset], cache_dir: Path
) -> Dataset:
    """Returns a dataset from the cache, or builds and caches it.

    The cache is a convenience: whatever goes wrong with it is logged in one line and ignored.

    Args:
        identify: the identity of the source as it is now.
        build: reads the source.
        cache_dir: holds `datasets/`.
    """
    identity = identify()
    folder = cache_dir / "datasets" / identity.folder_name
    try:
        found = folder.is_dir()
    except OSError:  # no right to look into the cache; storing will say so
        found = False
    if found:
        try:
            return _read_entry(folder)
        except UserError:  # it would take too much memory
            raise
        # A corrupt file can fail in any way: JSON, NumPy, a missing key, a dtype.
        except Exception as error:
            logger.warning(
                "cached dataset %s is corrupt (%s): building it again", folder, reason(error)
            )
            shutil.rmtree(folder, ignore_errors=True)
    dataset = build()
    try:
        unchanged = identify() == identity
    except OSError:  # removed meanwhile
        unchanged = False
    if not unchanged:
        logger.warning("%s changed while it was read: not cached", identity.place)
        return dataset
    try:
        _store_entry(folder, dataset, identity)
    except OSError as error:
        logger.warning("continuing without caching the dataset: %s", reason(error))
    return dataset


def _read_entry(folder: Path) -> Dataset:
    meta = json.loads(read_text(folder / "meta.json"))
    checksum = meta.pop("crc32")
    if checksum != _meta_crc32(meta):
        raise ValueError("meta.json has another checksum")
    arrays = {}
    needed = sum(meta["arrays"][name]["bytes"] for name in _ARRAYS)
    check_bytes(f"{meta['source']}: the images", needed)
    for name in _ARRAYS:
        expected = meta["arrays"][name]
        path = folder / f"{name}.npy"
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
        if _file_crc32(path) != expected["crc32"]:
            raise ValueError(f"{path.name} has another checksum")
        arrays[name] = np.load(path, allow_pickle=False)
    return Dataset(
        **arrays,
        class_names=tuple(meta["class_names"]),
        digest=meta["digest"],
        source=meta["source"],
    )


def _file_crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _meta_crc32(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _store_entry(folder: Path, dataset: Dataset, identity: Identity) -> None:
    """Writes an entry beside its place and renames it, so that no reader sees half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".unfinished-{uuid.uuid4().hex}"
    try:
        unfinished.mkdir()
        arrays = {}
        for name in _ARRAYS:
            array = getattr(dataset, name)
            path = unfinished / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            arrays[name] = {
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "bytes": path.stat().st_size,
                "crc32": _file_crc32(path),
            }
        meta: dict[str, Any] = {
            "slot": identity.slot,
            "identity": {**dataclasses.asdict(identity), "state": len(identity.state)},
            "source": dataset.source,
            "digest": dataset.digest,
            "class_names": list(dataset.class_names),
            "arrays": arrays,
        }
        meta["crc32"] = _meta_crc32(meta)
        (unfinished / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process stored the same entry first; one of the two is enough.
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _remove_stale_entries(folder, identity.slot)


def _remove_stale_entries(newest: Path, slot: str) -> None:
    """Removes what `newest` replaces, and what killed processes left a day ago or earlier."""
    for entry in newest.parent.iterdir():
        try:
            if entry.name.startswith(".unfinished-"):
                stale = entry.stat().st_mtime < time.time() - 86_400
            else:
                meta = json.loads(read_text(entry / "meta.json"))
                stale = entry != newest and meta["slot"] == slot
        except (OSError, ValueError, KeyError, TypeError):  # not one of ours, or just removed
            continue
        if stale:
            shutil.rmtree(entry, ignore_errors=True)
