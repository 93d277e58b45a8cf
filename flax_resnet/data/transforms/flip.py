"""Random horizontal flip (paper, section 2.2)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from flax_resnet.data.transforms.transform import stream


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability 0.5.

    With `alternating`, a random half of the images in the first epoch, and from then on each image
    in every other epoch, so that two consecutive epochs show both of its mirror images (Jordan
    2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.6).
    """

    alternating: bool = False
    name: str = "flip"

    def draw(self, seed: int, epoch: int, index: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which images to mirror."""
        if not self.alternating:
            return stream(self.name, seed, epoch).random_sample(len(index)) < 0.5
        first_half = stream(self.name, seed, 0).random_sample(len(index)) < 0.5
        return first_half[index] ^ (epoch % 2 == 1)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Bool[np.ndarray, " b"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Mirrors the chosen images."""
        chosen = images[draws]
        mirrored = np.empty_like(chosen)
        for channel in range(images.shape[-1]):  # five times faster than all channels at once
            mirrored[..., channel] = chosen[:, :, ::-1, channel]
        flipped = images.copy()
        flipped[draws] = mirrored
        return flipped
