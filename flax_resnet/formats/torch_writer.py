"""Writes a state_dict as torch.save would, for torch.load(FILE, weights_only=True).

The pickle is written instruction by instruction (protocol 2): a dict of calls of
torch._utils._rebuild_tensor_v2, whose data are members of the archive.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: the same weights make the same file


def write_torch_archive(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of float32 and int64 under their names."""
    folder = path.name.lstrip(".").split(".")[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", _EPOCH), content)

        write("data.pkl", _pickle(state))
        write("byteorder", b"little")
        for index, array in enumerate(state.values()):
            write(f"data/{index}", array.astype(array.dtype.newbyteorder("<")).tobytes())
        write("version", b"3\n")


def _pickle(state: Mapping[str, np.ndarray]) -> bytes:
    items = b"".join(
        _text(name) + _tensor(str(index), array)
        for index, (name, array) in enumerate(state.items())
    )
    return b"\x80\x02}(" + items + b"u."  # PROTO 2, EMPTY_DICT, MARK, items, SETITEMS, STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
    storage = [
        _text("storage"), _global("torch", _STORAGES[array.dtype]), _text(key), _text("cpu"),
        _integer(array.size),
    ]  # fmt: skip
    arguments = [
        _tuple(storage) + b"Q",  # BINPERSID
        _integer(0),
        _tuple([_integer(size) for size in array.shape]),
        _tuple([_integer(step) for step in strides[: array.ndim]]),
        b"\x89",  # requires no gradient
        _global("collections", "OrderedDict") + b")R",  # of hooks: none
    ]
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + b"R"  # REDUCE


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _tuple(items: list[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"
