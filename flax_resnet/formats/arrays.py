"""Arrays in a file that are looked at before they are read."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file.

    Attributes:
      shape: what the file says.
      read: gives the array, in its own dtype.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


State = Mapping[str, Stored]
