"""Random mirroring left to right (paper, section 2.2)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt8


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability 0.5."""

    name: str = "flip"

    def draw(self, rng: np.random.RandomState, num_images: int) -> Bool[np.ndarray, " n"]:
        """Which images to mirror."""
        return rng.random_sample(num_images) < 0.5

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Bool[np.ndarray, " b"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Mirrors the chosen images."""
        _, _, width, channels = images.shape
        columns = np.arange(width * channels).reshape(width, channels)[::-1].ravel()
        flipped = images.copy()
        rows = images[draws].reshape(-1, width * channels)
        flipped[draws] = rows.take(columns, axis=1).reshape(-1, *images.shape[1:])
        return flipped
