"""Reads a dataset from one .npz file: x_train, y_train, x_test, y_test, perhaps class_names."""

import zipfile
from pathlib import Path

import numpy as np

from flax_resnet.dataset_cache import Identity, file_state
from flax_resnet.dataset_type import Dataset, make_dataset
from flax_resnet.errors import UserError
from flax_resnet.image_arrays import check_memory, resize_images, three_channels
from flax_resnet.image_files import reason

_FIELDS = ("x_train", "y_train", "x_test", "y_test")


def identify_npz(path: Path, image_size: int | None) -> Identity:
    """The identity of a .npz file for the cache."""
    path = path.absolute()
    return Identity("npz", path.name, str(path), image_size, file_state(path, path.parent))


def read_npz(path: Path, image_size: int | None, memory_limit: int | None) -> Dataset:
    """Reads a .npz file.

    Args:
        path: holds x_train and x_test (uint8, [N, H, W, 3], [N, H, W, 1] or [N, H, W]), y_train
            and y_test (any integers, [N] or [N, 1]) and, if it likes, class_names (text, [K]).
        image_size: side in pixels to which the images are resized; None: their own.
        memory_limit: see `check_memory`.

    Raises:
        UserError: the file is damaged or a field is missing or wrong; both are named.
    """
    # Opened by hand: np.load takes what is no zip for a pickle or a lone array.
    try:
        with zipfile.ZipFile(path) as archive:
            _check_fields(archive, path, image_size, memory_limit)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _read_field(file, name, path) for name in _FIELDS}
            has_names = "class_names" in file.files
            names = _read_field(file, "class_names", path) if has_names else None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: is no readable .npz file ({reason(error)})") from error
    class_names = None
    if names is not None:
        if names.dtype.kind != "U" or names.ndim != 1 or not len(names):
            raise UserError(
                f"{path}: class_names is {names.dtype} {list(names.shape)}; make it a 1-D array "
                "of text, np.array(['cat', 'dog'])"
            )
        class_names = tuple(str(name) for name in names)
    images = [three_channels(arrays[name], f"{path}: {name}") for name in ("x_train", "x_test")]
    if image_size is not None:
        images = [resize_images(array, len(array), image_size) for array in images]
    return make_dataset(
        (images[0], images[1]),
        (arrays["y_train"], arrays["y_test"]),
        class_names,
        origin=str(path),
        source=f"{path.name} (npz, {path.absolute()})",
        fields=_FIELDS,
    )


def _check_fields(
    archive: zipfile.ZipFile, path: Path, image_size: int | None, memory_limit: int | None
) -> None:
    """Checks that the fields are there and that the images, unpacked, would fit in memory."""
    members = {info.filename: info for info in archive.infolist()}
    missing = [name for name in _FIELDS if f"{name}.npy" not in members]
    if missing:
        held = ", ".join(sorted(name.removesuffix(".npy") for name in members)) or "nothing"
        raise UserError(f"{path}: has no {missing[0]} (it holds {held}); it needs {_FIELDS}")
    shapes = []
    for name in ("x_train", "x_test"):
        with archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, _ = read_header(member)
        if len(shape) not in (3, 4) or 0 in shape:
            return  # the checks of the arrays themselves tell what is wrong
        shapes.append(shape)
    for shape in shapes:
        size = shape[1:3] if image_size is None else (image_size, image_size)
        check_memory(str(path), shapes[0][0] + shapes[1][0], size, memory_limit)


def _read_field(file: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:  # an array of Python objects, or a damaged header
        raise UserError(
            f"{path}: {name} cannot be read ({reason(error)}); save it as a plain array"
        ) from error
    # A damaged zip member: a bad checksum, broken compression, an end too early.
    except Exception as error:
        raise UserError(f"{path}: {name} is damaged ({reason(error)}); save it again") from error
