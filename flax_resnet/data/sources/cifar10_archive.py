"""Reads CIFAR-10 from its official binary archive, downloaded by hand; needs no TensorFlow."""

import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from flax_resnet.data.cache import Identity, file_state
from flax_resnet.data.dataset import Dataset, make_dataset
from flax_resnet.data.image_arrays import check_memory, resize_images
from flax_resnet.process.errors import UserError, reason

# SHA-256 of cifar-10-binary.tar.gz (170,052,171 bytes) as tensorflow_datasets publishes it, in
# url_checksums/cifar10.txt.
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

# Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a record is one byte of label, then the
# red, the green and the blue plane, each 32 rows of 32 bytes.
_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"{_FOLDER}/data_batch_{index}.bin" for index in range(1, 6))
_TEST_FILE = f"{_FOLDER}/test_batch.bin"
_NAMES_FILE = f"{_FOLDER}/batches.meta.txt"
_RECORD_BYTES = 1 + 3 * 32 * 32
_IMAGES_PER_FILE = 10_000
_MAX_NAMES_BYTES = 10_000  # the names take 61; anything much longer is no list of names


def identify_archive(path: Path, image_size: int | None) -> Identity:
    """The identity of an archive for the cache."""
    path = path.absolute()
    state = file_state(path, path.parent)
    return Identity("archive", "cifar10_archive", str(path), image_size, state)


def read_cifar10_archive(
    path: Path,
    image_size: int | None = None,
    *,
    sha256: str = ARCHIVE_SHA256,
    images_per_file: int = _IMAGES_PER_FILE,
) -> Dataset:
    """Reads cifar-10-binary.tar.gz.

    Args:
        path: the archive.
        image_size: side in pixels to which the images are resized; None: 32.
        sha256: what the archive must hash to, in hexadecimal.
        images_per_file: records in each of the six files.

    Raises:
        UserError: the archive has another checksum, lacks a file or cannot be read.
    """
    _check_sha256(path, sha256)
    side = image_size or 32
    check_memory(str(path), 6 * images_per_file, (side, side))
    size = images_per_file * _RECORD_BYTES
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = _read_members(archive, path, size)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, f"cannot be unpacked ({reason(error)})") from error
    names = tuple(members[_NAMES_FILE].decode("ascii", "replace").split())
    train = [_parse(members[name], image_size) for name in _TRAIN_FILES]
    test_images, test_labels = _parse(members[_TEST_FILE], image_size)
    return make_dataset(
        (np.concatenate([images for images, _ in train]), test_images),
        (np.concatenate([labels for _, labels in train]), test_labels),
        names,
        origin=str(path),
        source=f"cifar10 (archive, {path.absolute()})",
    )


def _check_sha256(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({reason(error)})") from error
    if found != expected:
        raise _unreadable(path, f"has SHA-256 {found}, expected {expected}")


def _unreadable(path: Path, fault: str) -> UserError:
    return UserError(
        f"config.archive: {path} {fault}; download the official cifar-10-binary.tar.gz again",
        code="unreadable",
        field="config.archive",
    )


def _read_members(archive: tarfile.TarFile, path: Path, size: int) -> dict[str, bytes]:
    """The seven known files; whatever else the archive holds is ignored."""
    wanted = {*_TRAIN_FILES, _TEST_FILE, _NAMES_FILE}
    members = {}
    for member in archive:
        if member.name not in wanted:
            continue
        right_size = (
            member.size < _MAX_NAMES_BYTES if member.name == _NAMES_FILE else (member.size == size)
        )
        content = archive.extractfile(member) if member.isfile() and right_size else None
        if content is None:
            fault = f"has {member.size} bytes in {member.name}, expected {size}"
            raise _unreadable(path, fault)
        members[member.name] = content.read()
    missing = sorted(wanted - set(members))
    if missing:
        raise _unreadable(path, f"has no {missing[0]}")
    return members


def _parse(content: bytes, image_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3] or of `image_size`, and labels, uint8 [N], of one file."""
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    if image_size is not None:
        images = resize_images(np.ascontiguousarray(images), len(images), image_size)
    return images, records[:, 0]
