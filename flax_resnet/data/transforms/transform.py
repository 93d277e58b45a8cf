"""What a transform is, and the random streams it draws from."""

import zlib
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped, UInt8


@runtime_checkable  # for beartype, in tests
class Transform(Protocol):
    """A random change of images: drawn for an entire epoch, applied batch by batch.

    `apply` is a pure function, so any batch of any epoch can be made again.
    """

    @property
    def name(self) -> str:
        """Selects the transform's random stream; another name draws other numbers."""
        ...

    def draw(
        self, seed: int, epoch: int, index: Int64[np.ndarray, " n"]
    ) -> Shaped[np.ndarray, "n ..."]:
        """Draws for one epoch; the first axis is the position in the epoch.

        Args:
            seed: of the run.
            epoch: counted from 0.
            index: the training image at each position.
        """
        ...

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Shaped[np.ndarray, "b ..."]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Transforms a batch as drawn; leaves its input unchanged."""
        ...


def stream(name: str, seed: int, epoch: int) -> np.random.RandomState:
    """The random stream for a name and an epoch; adding a transform changes no other stream.

    NumPy guarantees that RandomState's methods draw the same numbers in every version (NEP 19);
    those of default_rng's Generator may change.
    """
    return np.random.RandomState(np.array([seed, epoch, zlib.crc32(name.encode())], np.uint32))
