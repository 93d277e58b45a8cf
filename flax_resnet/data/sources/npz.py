"""Reads a dataset from one .npz file: x_train, y_train, x_test, y_test, optionally class_names."""

import math
import sys
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flax_resnet.data.cache import Identity, file_state
from flax_resnet.data.dataset import Dataset, make_dataset
from flax_resnet.data.image_arrays import check_bytes, resize_images, three_channels
from flax_resnet.process.errors import UserError, reason, shortened

_FIELDS = ("x_train", "y_train", "x_test", "y_test")


def identify_npz(path: Path, image_size: int | None) -> Identity:
    """The identity of a .npz file for the cache."""
    path = path.absolute()
    return Identity("npz", path.name, str(path), image_size, file_state(path, path.parent))


def read_npz(path: Path, image_size: int | None) -> Dataset:
    """Reads a .npz file.

    Args:
        path: holds x_train and x_test (uint8, [N, H, W, 3], [N, H, W, 1] or [N, H, W]), y_train
            and y_test (any integers, [N] or [N, 1]) and optionally class_names (text, [K]).
        image_size: side in pixels to which the images are resized; None: their own size.

    Raises:
        UserError: the file is corrupt, or a field is missing or wrong; both are named.
    """
    # Opened by hand: np.load takes what is no zip for a pickle or a lone array, and reads a member
    # before one can see what it claims to hold.
    try:
        with zipfile.ZipFile(path) as archive:
            members = _check_fields(archive, path, image_size)
            arrays = {
                name: _read_field(archive, info, f"{path}: {name}")
                for name, info in members.items()
            }
    except UserError:
        raise
    # A corrupt zip fails in any way: BadZipFile, zlib.error, NotImplementedError for an unknown
    # compression, RuntimeError for a password ...
    except Exception as error:
        raise UserError(
            f"{path}: is not a readable .npz file ({reason(error)})",
            code="unreadable",
            field=str(path),
        ) from error
    images = [three_channels(arrays[name], f"{path}: {name}") for name in ("x_train", "x_test")]
    if image_size is not None:
        images = [resize_images(array, len(array), image_size) for array in images]
    return make_dataset(
        (images[0], images[1]),
        (arrays["y_train"], arrays["y_test"]),
        _class_names(arrays.get("class_names"), f"{path}: class_names"),
        origin=str(path),
        source=f"{path.name} (npz, {path.absolute()})",
        fields=_FIELDS,
    )


def read_npz_images(path: Path) -> UInt8[np.ndarray, "num height width 3"]:
    """The images of a .npz file: its `images` or `x_test`, or the one array that it holds.

    Raises:
        UserError: the file is corrupt, there is no such array, or it holds no images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            found = [name for name in ("images", "x_test") if name in members]
            if not found and len(members) != 1:
                raise _unreadable(str(path), "has neither images nor x_test")
            name = (found or list(members))[0]
            where = f"{path}: {name}"
            _check_member(archive, members[name], where)
            check_bytes(where, 4 * members[name].file_size)
            array = _read_field(archive, members[name], where)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(str(path), f"is not a readable .npz file ({reason(error)})") from error
    return three_channels(array, where)


def _class_names(names: np.ndarray | None, where: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1 or not len(names):
        raise UserError(
            f"{where} is {names.dtype} {list(names.shape)}; make it a 1-D array of text, "
            "np.array(['cat', 'dog'])",
            field=where,
        )
    # NumPy makes a str of any codes; Python fails on it later.
    native = names.astype(names.dtype.newbyteorder("="))
    if (np.frombuffer(native.tobytes(), np.uint32) > sys.maxunicode).any():
        raise UserError(
            f"{where} is corrupt: it has codes that are no Unicode character",
            code="corrupt",
            field=where,
        )
    return tuple(str(name) for name in native)


def _check_fields(
    archive: zipfile.ZipFile, path: Path, image_size: int | None
) -> dict[str, zipfile.ZipInfo]:
    """Checks that the fields are there and all fit in memory; returns those to read."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    missing = [name for name in _FIELDS if name not in members]
    if missing:
        listed = shortened(", ".join(sorted(members)) or "nothing")
        raise UserError(
            f"{path}: has no {missing[0]} (it holds {listed}); it needs {', '.join(_FIELDS)}",
            code="missing",
            field=f"{path}: {missing[0]}",
        )
    for info in members.values():
        archive.open(info).close()  # compares the name at the member with that in the index
    held = {name: members[name] for name in (*_FIELDS, "class_names") if name in members}
    shapes = {name: _check_member(archive, info, f"{path}: {name}") for name, info in held.items()}
    needed = sum(info.file_size for info in held.values())
    for shape in (shapes["x_train"], shapes["x_test"]):
        if len(shape) == 3 or shape[3:] == (1,):  # gray images and, made of them, RGB images
            needed += 3 * math.prod(shape)
        if image_size is not None and shape:
            needed += 3 * image_size**2 * shape[0]
    check_bytes(f"{path}: its arrays", needed)
    return held


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> tuple[int, ...]:
    """Checks what an array claims to hold; returns its shape.

    Its size must be the one in the index: only then is it read to its end, where zipfile compares
    the checksum.
    """
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(member)
        header_bytes = member.tell()
    if dtype.hasobject:
        raise _unreadable(where, "holds Python objects; save a plain array")
    num_bytes = math.prod(shape) * dtype.itemsize
    if info.file_size != header_bytes + num_bytes:
        raise _unreadable(
            where,
            f"is corrupt: {dtype} {shortened(str(list(shape)), 60)} takes {num_bytes:,} "
            f"bytes, but it holds {info.file_size - header_bytes:,}; save it again",
        )
    return shape


def _read_field(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    try:
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    # A corrupt zip member: a bad checksum, broken compression, an end too early.
    except Exception as error:
        raise _unreadable(where, f"is corrupt ({reason(error)}); save it again") from error


def _unreadable(where: str, fault: str) -> UserError:
    return UserError(f"{where} {fault}", code="unreadable", field=where)
