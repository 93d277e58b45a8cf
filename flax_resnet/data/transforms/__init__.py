"""Augmentation on the host, one transform per file; `build_transforms` composes them."""

from flax_resnet.data.transforms.crop import RandomCrop
from flax_resnet.data.transforms.flip import RandomFlip
from flax_resnet.data.transforms.transform import Transform


def build_transforms(*, crop_padding: int, flip: bool) -> tuple[Transform, ...]:
    """The transforms that are turned on, in the order in which they are applied."""
    transforms: list[Transform] = []
    if flip:
        transforms.append(RandomFlip())
    if crop_padding:
        transforms.append(RandomCrop(crop_padding))
    return tuple(transforms)
