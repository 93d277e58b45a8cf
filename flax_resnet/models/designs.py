"""The named designs; each has a config of the same name."""

from flax_resnet.models.resnet import Design


def _imagenet(stage_sizes: tuple[int, ...], block: str) -> Design:
    """A column of Figure 3 (He et al. 2016, table 1): strides in a bottleneck's first 1x1."""
    return Design(
        stage_sizes=stage_sizes,
        stage_channels=(64, 128, 256, 512),
        kernel_sizes=(3, 3, 3, 3),
        shortcut_kernels=(1, 1, 1, 1),
        pool_size=None,
        block="basic" if block == "basic" else "bottleneck",
        stem="imagenet",
    )


def _he_cifar(depth: int, plain: bool = False) -> Design:
    """He et al. 2016, section 4.2: 6n + 2 layers, shortcuts without parameters or none."""
    blocks = (depth - 2) // 6
    return Design(
        stage_sizes=(blocks, blocks, blocks),
        stage_channels=(16, 32, 64),
        kernel_sizes=(3, 3, 3),
        shortcut_kernels=(1, 1, 1),
        pool_size=8,
        shortcut="none" if plain else "pad",
    )


def _paper(stage_sizes: tuple[int, int, int, int]) -> Design:
    """Figure 4(a) with the B_i given.

    K is 1: the text says K2 = 3, but only 1x1 shortcuts give the 4,903,242 parameters that
    Figure 4(c) prints.
    """
    return Design(
        stage_sizes=stage_sizes,
        stage_channels=(64, 128, 256, 512),
        kernel_sizes=(3, 3, 3, 3),
        shortcut_kernels=(1, 1, 1, 1),
        pool_size=4,
    )


MODELS: dict[str, Design] = {
    "revised": _paper((1, 1, 1, 1)),
    "resnet18": _paper((2, 2, 2, 2)),
    **{f"resnet{depth}": _he_cifar(depth) for depth in (20, 32, 44, 56, 110)},
    **{f"plain{depth}": _he_cifar(depth, plain=True) for depth in (20, 56)},
    "imagenet_resnet18": _imagenet((2, 2, 2, 2), "basic"),
    "imagenet_resnet34": _imagenet((3, 4, 6, 3), "basic"),
    "imagenet_resnet50": _imagenet((3, 4, 6, 3), "bottleneck"),
    "imagenet_resnet101": _imagenet((3, 4, 23, 3), "bottleneck"),
    "imagenet_resnet152": _imagenet((3, 8, 36, 3), "bottleneck"),
}
