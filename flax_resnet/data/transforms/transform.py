"""What a transform is, and the random streams it draws from."""

import zlib
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8


@runtime_checkable  # for beartype, in tests
class Transform(Protocol):
    """A random change of images, drawn for a whole epoch and applied batch by batch."""

    @property
    def name(self) -> str:
        """Names the transform's random stream; changing it changes the draws."""
        ...

    def draw(self, rng: np.random.RandomState, num_images: int) -> Shaped[np.ndarray, "n ..."]:
        """Draws one epoch; the first axis is the position in the epoch."""
        ...

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Shaped[np.ndarray, "b ..."]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Transforms a batch as drawn; leaves its input unchanged."""
        ...


def stream(name: str, seed: int, epoch: int) -> np.random.RandomState:
    """The random stream of one name in one epoch; adding a transform changes no other's.

    RandomState's streams are frozen (NEP 19); default_rng's may change with NumPy.
    """
    return np.random.RandomState(np.array([seed, epoch, zlib.crc32(name.encode())], np.uint32))
