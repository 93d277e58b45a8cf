"""Reads pickles as data: a stack machine of its own, which calls nothing that a file names.

Python's unpickler imports and calls whatever a file asks for, and so runs it. Here the standard
library only splits a pickle into its instructions (`pickletools.genops`), and the few that build
data are done below. A name of a class or function is looked up in a table that the caller gives.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from flax_resnet.process.errors import reason, shortened


class Refused(Exception):
    """A pickle is damaged, or holds something else than data; the text, "it ...", says what."""


# By the name in the pickle, "module name": what takes the arguments there and returns an object,
# which takes the state that the pickle may give it later if it has `set_state`.
Constructors = Mapping[str, Callable[..., Any]]


def read_pickle(
    data: bytes,
    constructors: Constructors,
    stored: Callable[[tuple[Any, ...]], Any] | None = None,
) -> Any:
    """What a pickle of any protocol holds: None, bools, numbers, text, bytes, lists, tuples, dicts.

    Args:
      data: the pickle; what follows its end is ignored.
      constructors: what may be called besides, by its name in the pickle. OrderedDict is always.
      stored: gives what a "persistent id" stands for, data kept outside of the pickle.

    Raises:
      Refused: it is damaged, or holds something else.
    """
    machine = _Machine(constructors, stored)
    try:
        for instruction, argument, _ in pickletools.genops(data):
            machine.run(instruction.name, argument)
        return machine.pop()
    except Refused:
        raise
    # genops has no exception of its own, nor has what is done with a damaged file's instructions.
    except Exception as error:
        raise Refused(f"it is cut short or damaged ({reason(error)})") from error


class _Constructor:
    """A name found in the table; nothing else is ever called."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name, self.build = name, build


# Instructions that push what stands behind them in the file, already decoded.
_PUSH = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = {"PROTO", "FRAME", "STOP"}
_KEYS = (str, int, float, bytes)  # a key of nested tuples could exhaust C's stack as it is hashed


class _Machine:
    """A stack, the stacks below its marks, and numbered values to use again."""

    def __init__(
        self, constructors: Constructors, stored: Callable[[tuple[Any, ...]], Any] | None
    ) -> None:
        self._stored = stored
        self._constructors = {"collections OrderedDict": OrderedDict} | dict(constructors)
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> None:
        """Does one instruction, `argument` being what stands behind it."""
        if name in _PUSH:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self._push_constructor(argument)
        elif name not in _IGNORED:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise Refused(f"it has the instruction {name}, which makes objects")
            method()

    def _push_constructor(self, name: str) -> None:
        if name not in self._constructors:
            shown = shortened(name.replace(" ", "."), 100)
            raise Refused(f"it holds {shown}, and only tensors, dicts, numbers and text are read")
        self._stack.append(_Constructor(name, self._constructors[name]))

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self._push_constructor(f"{module} {name}")

    def _binpersid(self) -> None:
        key = self.pop()
        if self._stored is None or type(key) is not tuple:
            raise Refused("it refers to data outside of itself")
        self._stack.append(self._stored(key))

    def _reduce(self) -> None:
        arguments, constructor = self.pop(), self.pop()
        if type(constructor) is not _Constructor or type(arguments) is not tuple:
            self._malformed("calls a value")
        if constructor.build is OrderedDict and arguments:  # its items follow, one by one
            self._malformed("fills an OrderedDict at once")
        self._stack.append(constructor.build(*arguments))

    def _build(self) -> None:
        state, target = self.pop(), self._stack[-1]
        if type(target) is OrderedDict:  # PyTorch's _metadata: versions of its layers
            return
        if not hasattr(type(target), "set_state"):
            self._malformed("gives a value a state")
        target.set_state(state)

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        """The values since the last mark."""
        values, self._stack = self._stack, self._below.pop()
        return values

    def _pop(self) -> None:
        self.pop()

    def _dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self) -> None:
        values = self._pop_mark()
        self._stack.append(tuple(values))

    def _tuple1(self) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def _tuple2(self) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _tuple3(self) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _empty_list(self) -> None:
        self._stack.append([])

    def _list(self) -> None:
        values = self._pop_mark()
        self._stack.append(values)

    def _append(self) -> None:
        value = self.pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            self._malformed("appends to something else than a list")
        self._stack[-1].extend(values)

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _dict(self) -> None:
        values = self._pop_mark()
        self._stack.append({})
        self._update(values)

    def _setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def _setitems(self) -> None:
        self._update(self._pop_mark())

    def _update(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in (dict, OrderedDict) or len(values) % 2:
            self._malformed("fills something else than a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, _KEYS):
                self._malformed("has a key that is neither text nor a number")
            target[key] = value

    def _malformed(self, what: str) -> NoReturn:
        raise Refused(f"it is malformed: it {what}")
