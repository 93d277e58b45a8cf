"""Augmentation on the host, one transform per file; `build_transforms` composes them."""

from flax_resnet.data.transforms.color_jitter import ColorJitter
from flax_resnet.data.transforms.crop import PadMode, RandomCrop
from flax_resnet.data.transforms.cutout import Cutout
from flax_resnet.data.transforms.flip import RandomFlip
from flax_resnet.data.transforms.resized_crop import RandomResizedCrop
from flax_resnet.data.transforms.transform import Transform
from flax_resnet.data.transforms.trivial_augment import TrivialAugment


def build_transforms(
    *,
    crop_padding: int,
    flip: bool,
    pad_mode: PadMode = "zeros",
    alternating: bool = False,
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0),
    trivial_augment: bool = False,
    cutout: int = 0,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    resized_crop: float | None = None,
    native: bool = False,
) -> tuple[Transform, ...]:
    """The transforms that are turned on, in the order in which they are applied.

    Args:
      crop_padding: pixels on each side of the image to crop from; 0: no crop.
      flip: whether to mirror.
      pad_mode: what the padding holds.
      alternating: mirror each image in every other epoch, not at random.
      color_jitter: how far brightness, contrast and saturation are changed.
      trivial_augment: whether each image gets one operation of TrivialAugment's.
      cutout: side of the square to cover; 0: none.
      mean: color of that square, in [0, 1].
      resized_crop: smallest area of a random resized crop, as a share of the image's; None: none.
      native: make that crop by OpenCV.
    """
    transforms: list[Transform] = []
    if resized_crop is not None:
        transforms.append(RandomResizedCrop(resized_crop, native))
    if flip:
        transforms.append(RandomFlip(alternating))
    if crop_padding:
        transforms.append(RandomCrop(crop_padding, pad_mode))
    if any(color_jitter):
        brightness, contrast, saturation = color_jitter
        transforms.append(ColorJitter((brightness, contrast, saturation)))
    if trivial_augment:
        transforms.append(TrivialAugment())
    if cutout:
        red, green, blue = (round(255 * min(max(value, 0.0), 1.0)) for value in mean)
        transforms.append(Cutout(cutout, (red, green, blue)))
    return tuple(transforms)
