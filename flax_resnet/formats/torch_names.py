"""Our variables under the names and in the layouts of well-known PyTorch programs, and back.

The paper's own program and kuangliu's pytorch-cifar have one set of names, torchvision and timm
another. PyTorch keeps convolutions as [out, in, height, width] and linear layers as [out, in];
where the last map is pooled to more than one pixel, it flattens channels first.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from flax_resnet.formats.arrays import State
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import summarize
from flax_resnet.process.errors import UserError

Path_ = tuple[str, ...]
Pooled = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Names:
    """How a program calls its modules, where programs differ."""

    shortcut: str
    head: str


_CIFAR, _IMAGENET = Names("shortcut", "linear"), Names("downsample", "fc")
PROGRAMS = {"paper": _CIFAR, "kuangliu": _CIFAR, "torchvision": _IMAGENET, "timm": _IMAGENET}

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_UNCOUNTED = "num_batches_tracked"  # of each BatchNorm: its training steps
_LISTED = 4  # names of each fault


def check_design(design: Design, where: str) -> None:
    """Checks that those programs compute what the design says, given the same weights.

    Raises:
      UserError: they would take the weights and compute something else.
    """
    problem = None
    if design.shortcut != "projection":
        problem = f"design.shortcut is {design.shortcut!r}, and those programs have projections"
    elif design.block == "bottleneck" and design.bottleneck_stride == "1x1":
        problem = (
            "design.bottleneck_stride is '1x1', and those programs halve in the 3x3: "
            "use --config.design.bottleneck_stride=3x3"
        )
    if problem:
        raise UserError(f"{where}: config.{problem}", code="conflict", field="config.design")


def torch_name(path: Path_, names: Names) -> str:
    """PyTorch's name of ('params', 'stage1_block2', 'conv1', 'kernel') or another path."""
    *modules, leaf = path[1:]
    words = []
    for module in modules:
        if match := re.fullmatch(r"stage(\d+)_block(\d+)", module):
            words.append(f"layer{match[1]}.{int(match[2]) - 1}")
        elif match := re.fullmatch(r"(conv|norm)(\d+)", module):
            words.append(f"{'bn' if match[1] == 'norm' else 'conv'}{match[2]}")
        else:
            fixed = {
                "stem_conv": "conv1",
                "stem_norm": "bn1",
                "shortcut_conv": f"{names.shortcut}.0",
                "shortcut_norm": f"{names.shortcut}.1",
                "head": names.head,
            }
            words.append(fixed[module])
    return ".".join((*words, _LEAVES.get(leaf, leaf)))


def pooled_size(network: ResNet, image_shape: tuple[int, int, int]) -> Pooled:
    """(height, width) of the map that the head flattens."""
    (pool,) = [row for row in summarize(network, image_shape).rows if row.path == "head_pool"]
    return pool.output_shape[0], pool.output_shape[1]


def to_torch(
    variables: Mapping[str, Any], names: Names, pooled: Pooled, steps: int | None = None
) -> dict[str, np.ndarray]:
    """A state_dict of NumPy arrays.

    Args:
      variables: {'params', 'batch_stats'}.
      names: of the program.
      pooled: from pooled_size.
      steps: trained; adds each BatchNorm's counter of them.
    """
    state = {}
    for path, value in traverse_util.flatten_dict(dict(variables)).items():
        array = np.asarray(value)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            classes = array.shape[1]
            array = array.reshape(*pooled, -1, classes).transpose(3, 2, 0, 1).reshape(classes, -1)
        name = torch_name(path, names)
        state[name] = np.ascontiguousarray(array)
        if steps is not None and path[-1] == "var":
            state[name.replace("running_var", _UNCOUNTED)] = np.array(steps, np.int64)
    return state


def from_torch(
    state: State,
    expected: Mapping[str, Any],
    pooled: Pooled,
    where: Path,
) -> dict[str, Any]:
    """The variables of a state_dict.

    Args:
      state: of any of the programs, whose names are recognized.
      expected: shapes of {'params', 'batch_stats'}.
      pooled: from pooled_size.
      where: the file, for the message.

    Raises:
      UserError: names are missing or left over, shapes differ, or a number is not finite.
    """
    shapes: dict[Path_, Any] = traverse_util.flatten_dict(dict(expected))
    names = max(_CIFAR, _IMAGENET, key=lambda n: sum(torch_name(p, n) in state for p in shapes))
    flat = {}
    wanted = {path: torch_name(path, names) for path in shapes}
    _check_fit(state, {wanted[path]: _torch_shape(leaf) for path, leaf in shapes.items()}, where)
    for path, leaf in shapes.items():
        with np.errstate(all="ignore"):  # float64 that float32 does not hold becomes infinite
            array = state[wanted[path]].read().astype(leaf.dtype)
        if not np.isfinite(array).all():
            raise UserError(
                f"{where}: {wanted[path]} has a NaN or an infinite number",
                code="not_finite",
                field=str(where),
            )
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            classes = array.shape[0]
            array = array.reshape(classes, -1, *pooled).transpose(2, 3, 1, 0).reshape(-1, classes)
        flat[path] = np.ascontiguousarray(array)
    return traverse_util.unflatten_dict(flat)


def steps_of(state: State) -> int:
    """Training steps that the stem's BatchNorm counted; 0 where the file does not say."""
    counter = state.get(f"bn1.{_UNCOUNTED}")
    if counter is None or counter.shape:
        return 0
    steps = int(counter.read())
    return steps if 0 <= steps < 2**31 else 0


def classes_of(state: State) -> int | None:
    """Number of classes, from the head's bias; None: it has none of these names."""
    for names in (_CIFAR, _IMAGENET):
        bias = state.get(f"{names.head}.bias")
        if bias is not None and len(bias.shape) == 1:
            return bias.shape[0]
    return None


def _torch_shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape[i] for i in {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(leaf.shape), (0,)))


def _check_fit(state: State, wanted: dict[str, tuple[int, ...]], where: Path) -> None:
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted and not name.endswith(_UNCOUNTED)]
    other = [
        f"{name} is {list(state[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    faults = {"it lacks": missing, "it also has": extra, "shapes differ:": other}
    told = [f"{what} {_listed(names)}" for what, names in faults.items() if names]
    if told:
        raise UserError(
            f"{where} is not of the config's network: {'; '.join(told)}",
            code="conflict",
            field=str(where),
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
