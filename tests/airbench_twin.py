"""Airbench94 in PyTorch, written from its description, to compare ours with.

As in the original, its loss is a sum, its head's weights have a standard deviation of 1 and its
logits are divided by the head's inputs. Submodules have our names.
"""

from typing import Any

import torch
from torch import nn

from tests.torch_twin import torch_state


def norm(features: int) -> nn.BatchNorm2d:
    """Without a scale; PyTorch's momentum is the share that is taken."""
    layer = nn.BatchNorm2d(features, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def conv3x3(channels: int, features: int) -> nn.Conv2d:
    return nn.Conv2d(channels, features, 3, padding=1, bias=False)


class AirbenchNet(nn.Module):
    """Whitening, three groups of two convolutions, head."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem_whiten = nn.Conv2d(3, 24, 2)
        self.stem_whiten.weight.requires_grad = False
        channels = 24
        for number, features in enumerate(widths, start=1):
            entry, block = nn.Module(), nn.Module()
            entry.conv, entry.norm = conv3x3(channels, features), norm(features)
            block.conv1, block.norm1 = conv3x3(features, features), norm(features)
            self.add_module(f"stage{number}_entry", entry)
            self.add_module(f"stage{number}_block1", block)
            channels = features
        self.head = nn.Linear(channels, 10, bias=False)
        self.stages = range(1, len(widths) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gelu = nn.functional.gelu
        x = gelu(self.stem_whiten(x))
        for number in self.stages:
            entry: Any = self.get_submodule(f"stage{number}_entry")
            block: Any = self.get_submodule(f"stage{number}_block1")
            x = gelu(entry.norm(nn.functional.max_pool2d(entry.conv(x), 2)))
            x = gelu(block.norm1(block.conv1(x)))
        x = nn.functional.max_pool2d(x, 3).flatten(1)
        return self.head(x) / x.shape[1]


def head_factor(net: AirbenchNet) -> float:
    """Its head's weights over ours."""
    return (3 * net.head.in_features) ** 0.5


def load(variables: dict[str, Any], net: AirbenchNet) -> None:
    """Overwrites all of its weights and running statistics with ours."""
    state = torch_state(variables)
    state["head.weight"] = state["head.weight"] * head_factor(net)
    result = net.load_state_dict(state, strict=False)
    fixed = ("num_batches_tracked", "norm.weight", "norm1.weight")
    assert not result.unexpected_keys
    assert all(name.endswith(fixed) for name in result.missing_keys), result.missing_keys


def orthogonalized(gradient: torch.Tensor) -> torch.Tensor:
    """Three Newton-Schulz steps on the matrix [filters, numbers in a filter]."""
    x = gradient.reshape(len(gradient), -1)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(3):
        xxt = x @ x.T
        x = 3.4445 * x - 4.7750 * xxt @ x + 2.0315 * xxt @ xxt @ x
    return (x.T if is_tall else x).reshape(gradient.shape)


class Optimizers:
    """Muon for the filters and SGD for the rest, at the original's rates for a batch."""

    def __init__(self, net: AirbenchNet, batch_size: int) -> None:
        trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        self.filters = {name: p for name, p in trained if p.ndim == 4}
        self.momenta = {name: torch.zeros_like(p) for name, p in self.filters.items()}
        decay = 2e-6 * batch_size
        biases = [p for name, p in trained if p.ndim == 1]
        groups = [
            {"params": biases, "lr": 0.053, "weight_decay": decay / 0.053},
            {"params": [net.head.weight], "lr": 0.67, "weight_decay": decay / 0.67},
        ]
        self.sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)

    @torch.no_grad()
    def step(self, fraction: float) -> None:
        """A step at this fraction of the rates."""
        for group, rate in zip(self.sgd.param_groups, (0.053, 0.67), strict=True):
            group["lr"] = rate * fraction
        self.sgd.step()
        for name, p in self.filters.items():
            gradient: Any = p.grad
            self.momenta[name].mul_(0.6).add_(gradient)
            update = orthogonalized(gradient + 0.6 * self.momenta[name])
            p.mul_(len(p) ** 0.5 / p.norm())
            p.sub_(0.24 * fraction * update)
