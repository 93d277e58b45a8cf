"""The same network in PyTorch, written from the paper's description, to compare ours with.

Submodules have our names, so that a parameter's path is the same in both. Images are NCHW here;
the comparison holds for a pool over the whole last map, where flattening has one order only.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from flax_resnet.models.designs import Design


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)): two F x F convolutions, or a bottleneck of three."""

    def __init__(self, design: Design, stage: int, channels_in: int, stride: int) -> None:
        super().__init__()
        channels, kernel = design.stage_channels[stage], design.kernel_sizes[stage]
        if design.block == "bottleneck":
            strides = (stride, 1) if design.bottleneck_stride == "1x1" else (1, stride)
            layers = [(1, channels, strides[0]), (kernel, channels, strides[1])]
            layers.append((1, 4 * channels, 1))
        else:
            layers = [(kernel, channels, stride), (kernel, channels, 1)]
        before = channels_in
        for number, (size, features, step) in enumerate(layers, start=1):
            self.add_module(f"conv{number}", conv(before, features, size, step))
            self.add_module(f"norm{number}", nn.BatchNorm2d(features))
            before = features
        self.depth, self.stride, self.shortcut = len(layers), stride, design.shortcut
        self.more_channels = before - channels_in
        self.same = stride == 1 and not self.more_channels
        if not self.same and self.shortcut == "projection":
            size = design.shortcut_kernels[stage]
            self.shortcut_conv = conv(channels_in, before, size, stride)
            self.shortcut_norm = nn.BatchNorm2d(before)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for number in range(1, self.depth + 1):
            out = self.get_submodule(f"conv{number}")(out)
            out = self.get_submodule(f"norm{number}")(out)
            out = torch.relu(out) if number < self.depth else out
        if self.shortcut == "none":
            return torch.relu(out)
        if self.same:
            return torch.relu(out + x)
        if self.shortcut == "projection":
            return torch.relu(out + self.shortcut_norm(self.shortcut_conv(x)))
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(out + nn.functional.pad(x, (0, 0, 0, 0, 0, self.more_channels)))


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a number between 0 and 1, computed from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 16)
        self.excite = nn.Linear(channels // 16, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.excite(torch.relu(self.squeeze(x.mean((2, 3)))))
        return x * torch.sigmoid(y)[:, :, None, None]


class TorchResNet(nn.Module):
    """Stem, stages of residual blocks, average pool, linear layer."""

    def __init__(self, design: Design, num_classes: int) -> None:
        super().__init__()
        channels = design.stem_channels
        self.imagenet = design.stem == "imagenet"
        self.stem_conv = conv(3, channels, *((7, 2) if self.imagenet else (3, 1)))
        self.stem_norm = nn.BatchNorm2d(channels)
        self.stem_se = SqueezeExcitation(channels) if design.squeeze_excitation == "stem" else None
        self.block_names = []
        for stage, num_blocks in enumerate(design.stage_sizes):
            for number in range(1, num_blocks + 1):
                block = Block(design, stage, channels, 2 if stage > 0 and number == 1 else 1)
                name = f"stage{stage + 1}_block{number}"
                self.add_module(name, block)
                self.block_names.append(name)
                channels += block.more_channels
        self.pool = nn.AvgPool2d(design.pool_size) if design.pool_size else nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem_conv(x)))
        if self.imagenet:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        if self.stem_se is not None:
            x = self.stem_se(x)
        for name in self.block_names:
            x = self.get_submodule(name)(x)
        return self.head(torch.flatten(self.pool(x), 1))


def conv(channels: int, features: int, size: int, stride: int) -> nn.Conv2d:
    """A square convolution padded by half its kernel, without bias."""
    return nn.Conv2d(channels, features, size, stride=stride, padding=size // 2, bias=False)


def torch_state(variables: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Our `params` and `batch_stats` under PyTorch's names and in PyTorch's layouts."""
    state = {}
    for collection in ("params", "batch_stats"):
        for path, value in _leaves(variables[collection]):
            name = {
                "kernel": "weight",
                "scale": "weight",
                "mean": "running_mean",
                "var": "running_var",
            }.get(path[-1], path[-1])
            array = np.array(value)
            if array.ndim == 4:  # HWIO to OIHW
                array = array.transpose(3, 2, 0, 1)
            elif array.ndim == 2:  # in, out to out, in
                array = array.transpose(1, 0)
            state[".".join((*path[:-1], name))] = torch.tensor(array)
    return state


def copy_weights(variables: dict[str, Any], twin: TorchResNet) -> None:
    """Overwrites all of the twin's weights and running statistics with ours.

    Raises:
      ValueError: a weight exists on one side only.
    """
    result = twin.load_state_dict(torch_state(variables), strict=False)
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(f"only in PyTorch: {missing}; only in ours: {result.unexpected_keys}")


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """(path, array) of every array in nested dicts."""
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for name, node in tree.items() for leaf in _leaves(node, (*path, name))]
