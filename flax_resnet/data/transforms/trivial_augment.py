"""TrivialAugment with the wide space (Müller and Hutter 2021, arXiv 2103.10158)."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Int8, UInt8

from flax_resnet.data.transforms import enhance, lookup, warp
from flax_resnet.data.transforms.transform import stream

Rgb = UInt8[np.ndarray, "b h w 3"]
Levels = Int[np.ndarray, " b"]

LEVELS = 31  # 0 to 30
_MAX = LEVELS - 1
_TABLE_BYTES = 1 << 27

# (level, below 0 for the opposite direction; (height, width)) -> matrix, as in the authors' code.
_WARPS: dict[str, Callable[[int, warp.Shape], warp.Matrix]] = {
    "shear_x": lambda level, shape: warp.shear_x(0.99 * level / _MAX),
    "shear_y": lambda level, shape: warp.shear_y(0.99 * level / _MAX),
    "translate_x": lambda level, shape: warp.translate_x(int(32 * level / _MAX)),
    "translate_y": lambda level, shape: warp.translate_y(int(32 * level / _MAX)),
    "rotate": lambda level, shape: warp.rotate(int(135 * level / _MAX), shape),
}


def _factors(levels: Levels) -> np.ndarray:
    return levels * (2 - 0.01) / _MAX + 0.01


_OTHERS: dict[str, Callable[[Rgb, Levels], Rgb]] = {
    "identity": lambda images, levels: images,
    "brightness": lambda images, levels: enhance.brightness(images, _factors(levels)),
    "color": lambda images, levels: enhance.color(images, _factors(levels)),
    "contrast": lambda images, levels: enhance.contrast(images, _factors(levels)),
    "sharpness": lambda images, levels: enhance.sharpness(images, _factors(levels)),
    "posterize": lambda images, levels: lookup.posterize(images, 8 - 6 * levels // _MAX),
    "solarize": lambda images, levels: lookup.solarize(images, 256 - 256 * levels // _MAX),
    "auto_contrast": lambda images, levels: lookup.auto_contrast(images),
    "equalize": lambda images, levels: lookup.equalize(images),
}
OPERATIONS = (*_WARPS, *_OTHERS)


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """One operation on each image, any of fourteen, at any of 31 levels; geometric ones both ways.

    Operations, ranges and rounding are those of the authors' code, in which Pillow computes:
    nearest pixels, black outside. An image is changed to the bit as there.
    """

    name: str = "trivial_augment"

    def draw(self, seed: int, epoch: int, index: np.ndarray) -> Int8[np.ndarray, "n 3"]:
        """The number in OPERATIONS, the level, and 1 for the opposite direction."""
        rng = stream(self.name, seed, epoch)
        highs = len(OPERATIONS), LEVELS, 2
        return np.stack([rng.randint(0, high, len(index)) for high in highs], 1).astype(np.int8)

    def apply(self, images: Rgb, draws: Int8[np.ndarray, "b 3"]) -> Rgb:
        """Applies each operation to those of the images that drew it."""
        operations, levels, _ = draws.astype(int).T
        out = images.copy()
        warped = np.flatnonzero(operations < len(_WARPS))
        out[warped] = warp.warp(images[warped], _sources(draws[warped], images.shape[1:3]))
        for number, operation in enumerate(_OTHERS.values(), len(_WARPS)):
            chosen = np.flatnonzero(operations == number)
            if chosen.size:
                out[chosen] = operation(images[chosen], levels[chosen])
        return out


def _sources(draws: Int8[np.ndarray, "b 3"], shape: warp.Shape) -> warp.Sources:
    """What `warp` takes, out of a table of all maps unless the images are too large for one."""
    maps = len(_WARPS) * LEVELS * 2
    keys = np.ravel_multi_index(tuple(draws.astype(int).T), (len(_WARPS), LEVELS, 2))
    if 8 * maps * shape[0] * shape[1] > _TABLE_BYTES:
        return warp.sources(_matrices(shape)[keys], shape)
    return _source_table(shape)[keys]


@functools.cache
def _matrices(shape: warp.Shape) -> np.ndarray:
    """The matrices of all operations, levels and directions."""
    return np.array(
        [
            matrix(sign * level, shape)
            for matrix in _WARPS.values()
            for level in range(LEVELS)
            for sign in (1, -1)
        ]
    )


@functools.lru_cache(maxsize=1)
def _source_table(shape: warp.Shape) -> warp.Sources:
    return warp.sources(_matrices(shape), shape)
