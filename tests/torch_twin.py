"""The same network in PyTorch, written from the paper's description, to compare ours with.

Submodules have our names, so that a parameter's path is the same in both. Images are NCHW here;
the comparison holds for a pool over the whole last map, where flattening has one order only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm2(conv2(relu(norm1(conv1(x))))))."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=1, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.projects = stride != 1 or channels_in != channels
        if self.projects:
            self.shortcut_conv = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.projects else x
        return torch.relu(out + shortcut)


class TorchResNet(nn.Module):
    """3x3 stem, stages of basic blocks with strides 1, 2, 2, ..., pool, linear layer."""

    def __init__(
        self,
        stage_sizes: Sequence[int],
        stage_channels: Sequence[int],
        pool_size: int | None,
        num_classes: int,
    ) -> None:
        super().__init__()
        channels = stage_channels[0]
        self.stem_conv = nn.Conv2d(3, channels, 3, stride=1, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.block_names = []
        for stage, (num_blocks, features) in enumerate(
            zip(stage_sizes, stage_channels, strict=True), start=1
        ):
            for block in range(1, num_blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                self.add_module(name, BasicBlock(channels, features, stride))
                self.block_names.append(name)
                channels = features
        self.pool = nn.AvgPool2d(pool_size) if pool_size else nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem_conv(x)))
        for name in self.block_names:
            x = self.get_submodule(name)(x)
        return self.head(torch.flatten(self.pool(x), 1))


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
