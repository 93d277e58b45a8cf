"""Pickled images as CIFAR-10's Python files have them: a dict of 'data' and perhaps 'ids'.

So are the unlabelled test images of NYU's Kaggle competitions (cifar_test_nolabel.pkl). Nothing is
unpickled.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flax_resnet.formats.pickles import Refused, read_pickle
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import open_regular

MAX_BYTES = 1 << 30  # CIFAR-10's 10,000 images have 31 MB
_SIDE = 32


class _DType:
    """A NumPy dtype; its state holds the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str | bytes) or not re.fullmatch(r"[biuf][1248]", _text(code)):
            raise Refused("it holds an array that is not of numbers")
        self.dtype = np.dtype(_text(code))

    def set_state(self, state: Any) -> None:
        if _text(state[1]) == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """A NumPy array; older pickles give its content as a state."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _array(content, dtype, shape, "F" if fortran else "C")


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(content, str):  # Python 2's, or protocol 2's
        content = content.encode("latin-1")
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise Refused("an array is malformed")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=_text(order))


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    made = _Array()
    made.array = _array(content, dtype, shape, "C" if axes else order)
    if axes:  # NumPy 2.4's, of axes in another order
        made.array = made.array.transpose(axes)
    return made


def _encode(text: str, encoding: str) -> Any:
    if encoding != "latin1":
        raise Refused("it is malformed: bytes of an unknown encoding")
    return text  # encoded where it becomes an array: a copy for each mention could fill the memory


_CONSTRUCTORS: dict[str, Any] = {"_codecs encode": _encode, "numpy ndarray": _Array}
for _module in ("numpy.core", "numpy._core"):
    _CONSTRUCTORS[f"{_module}.multiarray _reconstruct"] = _Array
    _CONSTRUCTORS[f"{_module}.numeric _frombuffer"] = _from_buffer
_CONSTRUCTORS["numpy dtype"] = _DType


def read_cifar_pickle(path: Path) -> tuple[UInt8[np.ndarray, "n height width 3"], list[str]]:
    """The images of such a file, and the id of each: its own, or its number.

    Raises:
      UserError: the file is missing, damaged, or holds something else; it is named.
    """
    try:
        with open_regular(path, "rb", largest=MAX_BYTES) as file:
            content = read_pickle(file.read(), _CONSTRUCTORS)
        if not isinstance(content, dict):
            raise Refused("it holds no dict")
        fields = {_text(key): value for key, value in content.items()}
        images = _images(fields.get("data"))
        ids = fields.get("ids", range(len(images)))
        ids = [str(i) for i in (ids.array.tolist() if isinstance(ids, _Array) else ids)]
        if len(ids) != len(images):
            raise Refused(f"it has {len(images):,} images and {len(ids):,} ids")
        return images, ids
    except OSError as error:
        why = error.strerror or reason(error)
    except Exception as error:
        why = reason(error)
    raise UserError(
        f"{path} cannot be read as pickled images: {why}", code="unreadable", field=str(path)
    )


def _images(data: Any) -> np.ndarray:
    array: Any = data.array if isinstance(data, _Array) else np.zeros(0)
    if array.dtype == np.uint8 and array.ndim == 2 and array.shape[1] == 3 * _SIDE**2:
        planes = array.reshape(-1, 3, _SIDE, _SIDE)  # of red, green and blue
        return planes.transpose(0, 2, 3, 1)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3:
        return array
    raise Refused("its 'data' is no array of images: uint8, [N, 3072] or [N, height, width, 3]")
