"""The PyTorch programs whose files are read and written, to compare with.

torchvision's and timm's networks are their own. Those of the paper and of kuangliu's pytorch-cifar,
which are scripts and no packages, are written from their structure, with their names.
"""

import importlib
import re
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def import_beside_another_build(name: str) -> Any:
    """Imports torchvision, or what needs it, also where its own operators do not load.

    They do not where it was built for CUDA and PyTorch for the CPU; no classifier needs them.
    """
    while True:
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], "() -> ()")
            for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
                del sys.modules[module]


class CifarBlock(nn.Module):
    """Of the paper and of pytorch-cifar."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The paper's network (blocks 1, 1, 1, 1) and kuangliu's ResNet18 (2, 2, 2, 2)."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        channels: tuple[int, ...] = (64, 128, 256, 512),
        pool: int = 4,
        map_pixels: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        before = channels[0]
        for stage, (count, features) in enumerate(zip(blocks, channels, strict=True), start=1):
            layer = []
            for index in range(count):
                layer.append(CifarBlock(before, features, 2 if stage > 1 and index == 0 else 1))
                before = features
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
        self.stages, self.pool = len(blocks), pool
        self.linear = nn.Linear(before * map_pixels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            out = self.get_submodule(f"layer{stage}")(out)
        out = functional.avg_pool2d(out, self.pool)
        return self.linear(out.flatten(1))


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm's scales, biases and statistics away from their initial values; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            assert module.num_batches_tracked is not None
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.num_batches_tracked.fill_(17)
    return network.eval()


def logits(network: nn.Module, images: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """Of uint8 images [N, height, width, 3], normalized as the config says, in its own dtype."""
    dtype = next(network.parameters()).dtype
    scaled = torch.tensor(images.transpose(0, 3, 1, 2)).to(dtype) / 255
    center, spread = (torch.tensor(tuple(v), dtype=dtype).reshape(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        return network((scaled - center) / spread).numpy()
