"""The hyperparameters of Figure 4(a), and the named designs, each with a config of its name.

A design is, for each stage i, the number of blocks B_i, the channels C_i, the kernel F_i of the
blocks' convolutions and the kernel K_i of the shortcut; and P, the last pool's kernel. The rest
names parts that other networks have in place of the paper's.
"""

import dataclasses
from typing import Literal

BlockName = Literal["basic", "bottleneck", "single"]


@dataclasses.dataclass(frozen=True)
class Design:
    """A point of the design space; the tuples have an element for each stage.

    Attributes:
      stage_sizes: B_i, residual blocks in stage i.
      stage_channels: C_i, channels of stage i (of a bottleneck: its inner channels).
      kernel_sizes: F_i, side of the blocks' square convolution kernels, odd.
      shortcut_kernels: K_i, side of the projection's kernel where the shape changes, odd.
      pool_size: P, side of the pool before the linear layer; None: the whole map.
      block: 'basic' (two F x F), 'bottleneck' (1x1, F x F, 1x1 with four times the channels) or
        'single' (one F x F).
      shortcut: where the shape changes, 'projection' (convolution and BatchNorm), 'pad' (every
        other pixel, new channels zero: He's option A); 'none' leaves out every shortcut, also
        the identities (a plain net).
      stem: 'cifar' (3x3, stride 1), 'imagenet' (7x7, stride 2, then a 3x3 max pool, stride 2) or
        'whiten' (fixed 2x2 filters that whiten the images' patches, models/whitening.py).
      bottleneck_stride: the convolution that halves the image in a bottleneck, '1x1' (the first,
        as in Figure 3) or '3x3' (what most libraries ship).
      squeeze_excitation: after the 'stem', in all 'blocks' before the addition, or 'none'.
      stochastic_depth: probability that training leaves out the last block's branch for an image;
        it grows linearly with the block's number.
      zero_last_scale: whether the scale of a block's last BatchNorm starts at 0, and so the block
        as its shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
      downsample: how the image is halved: by the 'stride' of the first block of every stage but the
        first, or by a convolution and a max 'pool' before the blocks of every stage.
      activation: after BatchNorm and the addition.
      norm_scale: whether BatchNorm has a scale (its bias it always has).
      norm_momentum: share of BatchNorm's running statistics that is kept; PyTorch's 0.1 is 0.9.
      norm_epsilon: added to BatchNorm's variance.
      head_pool: the pool before the linear layer, 'average' or 'max'.
      head_bias: whether the linear layer has a bias.
      logit_scale: multiplies the logits.
    """

    stage_sizes: tuple[int, ...]
    stage_channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    shortcut_kernels: tuple[int, ...]
    pool_size: int | None
    block: BlockName = "basic"
    shortcut: Literal["projection", "pad", "none"] = "projection"
    stem: Literal["cifar", "imagenet", "whiten"] = "cifar"
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"
    squeeze_excitation: Literal["none", "stem", "blocks"] = "none"
    stochastic_depth: float = 0.0
    zero_last_scale: bool = False
    downsample: Literal["stride", "pool"] = "stride"
    activation: Literal["relu", "gelu", "silu"] = "relu"
    norm_scale: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    head_pool: Literal["average", "max"] = "average"
    head_bias: bool = True
    logit_scale: float = 1.0

    @property
    def stem_channels(self) -> int:
        """Channels of the stem, but for 'whiten': those of the first stage."""
        return self.stage_channels[0]


def _imagenet(stage_sizes: tuple[int, ...], block: BlockName) -> Design:
    """A column of Figure 3 (He et al. 2016, table 1): strides in a bottleneck's first 1x1."""
    return Design(
        stage_sizes=stage_sizes,
        stage_channels=(64, 128, 256, 512),
        kernel_sizes=(3, 3, 3, 3),
        shortcut_kernels=(1, 1, 1, 1),
        pool_size=None,
        block=block,
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


def _airbench(
    stage_channels: tuple[int, int, int], residual: bool = False, logit_scale: float = 1 / 9
) -> Design:
    """Jordan 2024 (arXiv 2404.00498), section 3: whitened patches, and three pools.

    A stage has two convolutions, the first of which is pooled; with `residual` a third, and a
    shortcut over the last two (section 4, "ResNet-like"; the authors' airbench96).
    """
    return Design(
        stage_sizes=(1, 1, 1),
        stage_channels=stage_channels,
        kernel_sizes=(3, 3, 3),
        shortcut_kernels=(1, 1, 1),
        pool_size=3,
        block="basic" if residual else "single",
        shortcut="projection" if residual else "none",
        stem="whiten",
        downsample="pool",
        activation="gelu",
        norm_scale=False,
        norm_momentum=0.6,
        norm_epsilon=1e-12,
        head_pool="max",
        head_bias=False,
        logit_scale=logit_scale,
    )


MODELS: dict[str, Design] = {
    "revised": _paper((1, 1, 1, 1)),
    "resnet18": _paper((2, 2, 2, 2)),
    **{f"resnet{depth}": _he_cifar(depth) for depth in (20, 32, 44, 56, 110)},
    **{f"plain{depth}": _he_cifar(depth, plain=True) for depth in (20, 56)},
    # arXiv 2306.12100, as its code has it.
    "efficient_resnet": Design(
        stage_sizes=(4, 4, 3),
        stage_channels=(64, 128, 256),
        kernel_sizes=(3, 3, 3),
        shortcut_kernels=(1, 1, 1),
        pool_size=8,
        squeeze_excitation="stem",
    ),
    "imagenet_resnet18": _imagenet((2, 2, 2, 2), "basic"),
    "imagenet_resnet34": _imagenet((3, 4, 6, 3), "basic"),
    "imagenet_resnet50": _imagenet((3, 4, 6, 3), "bottleneck"),
    "imagenet_resnet101": _imagenet((3, 4, 23, 3), "bottleneck"),
    "imagenet_resnet152": _imagenet((3, 8, 36, 3), "bottleneck"),
    # The authors' airbench94_muon scales the logits by 1/256 and its head's initial weights to a
    # standard deviation of 1. From PyTorch's initial weights, of 1/sqrt(3 * 256), this is the same.
    "airbench94": _airbench((64, 256, 256), logit_scale=(3 / 256) ** 0.5),
    "airbench95": _airbench((128, 384, 384)),
    "best_5m": _airbench((128, 256, 352), residual=True),
}
