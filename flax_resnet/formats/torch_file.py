"""PyTorch's files without PyTorch: .pt and .pth (torch.save's zip format), and .safetensors."""

import contextlib
import dataclasses
import functools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from safetensors import safe_open

from flax_resnet.formats.arrays import State, Stored
from flax_resnet.formats.pickles import Refused, read_pickle
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import open_regular

MAX_PICKLE = 64 << 20  # bytes; that of a ResNet-152 with its optimizer has 0.4 MB
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number before 1.6

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Where training programs keep the weights in a file that holds more.
_STATE_KEYS = ("state_dict", "model_state_dict", "net", "model", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, wrappers


@contextlib.contextmanager
def open_state(path: Path) -> Iterator[State]:
    """The tensors of a state_dict by their names; they can be read while the file is open.

    Raises:
      UserError: the file is missing, damaged, or holds something else than tensors; it is named.
    """

    def read(stored: Stored) -> np.ndarray:
        with _named(path):
            return stored.read()

    with contextlib.ExitStack() as stack:
        with _named(path):
            state = _open(path, stack)
        yield {
            name: Stored(stored.shape, functools.partial(read, stored))
            for name, stored in state.items()
        }


def _open(path: Path, stack: contextlib.ExitStack) -> State:
    with open_regular(path, "rb", largest=None) as file:
        start = file.read(len(_LEGACY))
    if path.suffix == ".safetensors":
        tensors = stack.enter_context(safe_open(path, "numpy"))
        return _checked({name: _slice(tensors, name) for name in tensors.keys()})  # noqa: SIM118
    if start == _LEGACY:
        raise Refused(
            "it is in PyTorch's format of before 1.6: read and save it again with PyTorch"
        )
    return _checked(_tensors(read_torch_archive(stack.enter_context(zipfile.ZipFile(path)))))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file raises into a UserError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", code="missing", field=str(path)) from error
    # A damaged zip fails in any way: BadZipFile, zlib.error, NotImplementedError, RuntimeError ...
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a file of tensors: {reason(error)}",
            code="unreadable",
            field=str(path),
        ) from error


def _slice(file: Any, name: str) -> Stored:
    return Stored(tuple(file.get_slice(name).get_shape()), lambda: file.get_tensor(name))


def _checked(state: dict[str, Stored]) -> State:
    if not state:
        raise Refused("it holds no tensors: save model.state_dict()")
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): stored for name, stored in state.items()}
    return state


def _tensors(content: Any) -> dict[str, Stored]:
    """Those of a state_dict, or of the one in what a training program saved."""
    if not isinstance(content, dict):
        raise Refused("it holds no dict of tensors: save model.state_dict()")
    for key in _STATE_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return {
        str(name): Stored(value.shape, value.read)
        for name, value in content.items()
        if isinstance(value, _Tensor)
    }


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A flat array, a member of the archive."""

    archive: zipfile.ZipFile
    member: str
    dtype: np.dtype
    size: int

    def read(self) -> np.ndarray:
        info = self.archive.getinfo(self.member)
        if info.file_size != self.size * self.dtype.itemsize:
            raise Refused(f"{self.member} has {info.file_size:,} bytes, not {self.size} elements")
        return np.frombuffer(self.archive.read(info), self.dtype)


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; nothing is read before `read`."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> np.ndarray:
        flat = self.storage.read()
        last = self.offset + sum(
            (size - 1) * step for size, step in zip(self.shape, self.strides, strict=True)
        )
        if not 0 <= self.offset <= last < len(flat) or int(np.prod(self.shape)) > len(flat):
            raise Refused("a tensor reaches over the end of its storage")
        bytes_apart = [step * flat.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, bytes_apart)
        return np.array(view, order="C")


def _make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(_is_size(number) for number in numbers):
        raise Refused("a tensor has no storage, or a negative size")
    if len(shape) != len(strides) or len(shape) > 8:
        raise Refused("a tensor has other dimensions than strides, or too many")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _make_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _not_called(*_: Any) -> NoReturn:
    raise Refused("it makes a storage without its data")


def read_torch_archive(archive: zipfile.ZipFile) -> Any:
    """What torch.save was given, its tensors not read yet.

    Raises:
      Refused: it holds something else than tensors, dicts, lists, numbers and text.
    """
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise Refused("it is no file of torch.save: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.namelist():
        raise Refused("it is a TorchScript program: save model.state_dict()")
    # What is read is never larger than the file.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise Refused("it is compressed, and torch.save compresses nothing")
    byteorder = f"{folder}byteorder"
    if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
        raise Refused("it was saved on a big-endian machine")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
        raise Refused(f"its data.pkl is larger than {MAX_PICKLE >> 20} MiB")

    def stored(key: tuple[Any, ...]) -> _Storage:
        kind, storage_type, name, _, size = key
        if kind != "storage" or not isinstance(name, str) or not _is_size(size):
            raise Refused("it refers to something else than a tensor's data")
        dtype = types.get(getattr(storage_type, "name", ""))
        if dtype is None:
            raise Refused("a tensor has an unknown dtype")
        return _Storage(archive, f"{folder}data/{name}", dtype, size)

    types = {f"torch {name}": dtype for name, dtype in _DTYPES.items()}
    constructors: Mapping[str, Any] = {
        "torch._utils _rebuild_tensor_v2": _make_tensor,
        "torch._utils _rebuild_parameter": _make_parameter,
    } | dict.fromkeys(types, _not_called)
    return read_pickle(archive.read(pickles[0]), constructors, stored)
