"""Random brightness, contrast and saturation."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from flax_resnet.data.transforms import enhance
from flax_resnet.data.transforms.transform import stream


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Multiplies brightness, contrast and saturation, in this order, by factors around 1.

    Each change is to the bit that of Pillow's ImageEnhance, and so of torchvision's ColorJitter on
    Pillow images, which takes them in random order.

    Attributes:
      amounts: of brightness, contrast and saturation: its factor is uniform in 1 +- amount; 0: off.
    """

    amounts: tuple[float, float, float]
    name: str = "color_jitter"

    def draw(
        self, seed: int, epoch: int, index: Int64[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 3"]:
        """The three factors."""
        rng = stream(self.name, seed, epoch)
        shifts = 2 * rng.random_sample((len(index), 3)) - 1
        return (1 + shifts * np.array(self.amounts)).astype(np.float32)

    def apply(
        self, images: UInt8[np.ndarray, "b h w c"], draws: Float32[np.ndarray, "b 3"]
    ) -> UInt8[np.ndarray, "b h w c"]:
        """Changes each image by its factors."""
        changes = enhance.brightness, enhance.contrast, enhance.color
        for change, amount, factors in zip(changes, self.amounts, draws.T, strict=True):
            if amount:
                images = change(images, factors)
        return images
