"""A trained network as an ONNX graph: uint8 images [N, height, width, 3] to probabilities.

Written layer by layer (jax2onnx, which converts any JAX function, cannot be installed beside the
orbax that checkpoints need). Weights have PyTorch's layouts, which are ONNX's, and its names.
"""

import json
from typing import Any

import numpy as np

from flax_resnet.config.build import build_model
from flax_resnet.config.load import design_of, to_json
from flax_resnet.formats.torch_names import PROGRAMS, pooled_size, to_torch
from flax_resnet.inference.model import Model
from flax_resnet.models.designs import Design
from flax_resnet.process.errors import UserError

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12 (2022): what programs in use read
_EPSILON = 1e-5  # of models/norm.py
_NAMES = PROGRAMS["torchvision"]


def to_onnx(model: Model) -> bytes:
    """The network in float32, whatever the run's dtype, with config and class names as metadata.

    Raises:
      UserError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            "--format onnx needs the package onnx: pip install onnx",
            code="unavailable",
            field="--format",
        ) from error
    network = build_model(model.config, len(model.class_names))
    state = to_torch(model.variables, _NAMES, pooled_size(network, model.image_shape))
    graph = _Graph(onnx.helper, state)
    graph.images(model.config.mean, model.config.std)
    graph.network(design_of(model.config))
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "flax_resnet",
            [_value(onnx, "images", onnx.TensorProto.UINT8, ("N", *model.image_shape))],
            [_value(onnx, "probabilities", onnx.TensorProto.FLOAT, ("N", len(model.class_names)))],
            [onnx.numpy_helper.from_array(a, name) for name, a in graph.arrays.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="flax_resnet",
    )
    metadata = {"class_names": json.dumps(model.class_names), "config": to_json(model.config)}
    onnx.helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def _value(onnx: Any, name: str, kind: int, shape: tuple[Any, ...]) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


class _Graph:
    """Nodes in a row, each of which takes what the one before gave."""

    def __init__(self, helper: Any, state: dict[str, np.ndarray]) -> None:
        self._helper = helper
        self._state = state
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._last = "images"

    def _add(self, kind: str, *others: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node on what the last one gave and `others`."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        inputs = [self._last, *others]
        self.nodes.append(self._helper.make_node(kind, inputs, [name], name, **attributes))
        self._last = name
        return name

    def _array(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.arrays[name] = np.asarray(value, dtype)
        return name

    def images(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Scales uint8 to [0, 1] and normalizes, in the order of engine/steps.py; then NCHW."""
        self._add("Cast", to=1)  # float32
        self._add("Div", self._array("white", 255))
        self._add("Sub", self._array("mean", mean))
        self._add("Div", self._array("std", std))
        self._add("Transpose", perm=[0, 3, 1, 2])

    def network(self, design: Design) -> None:
        """Stem, stages, pool, head and softmax."""
        imagenet = design.stem == "imagenet"
        self._conv_norm("conv1", "bn1", 2 if imagenet else 1)
        self._add("Relu")
        if imagenet:
            self._add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for stage, blocks in enumerate(design.stage_sizes):
            for index in range(blocks):
                self._block(design, f"layer{stage + 1}.{index}", 2 if stage and not index else 1)
        if design.pool_size:
            side = [design.pool_size] * 2
            self._add("AveragePool", kernel_shape=side, strides=side)
        else:
            self._add("GlobalAveragePool")
        self._add("Flatten")
        weight, bias = (self._weight(f"{_NAMES.head}.{part}") for part in ("weight", "bias"))
        self._add("Gemm", weight, bias, transB=1)
        self._add("Softmax", output="probabilities", axis=-1)

    def _block(self, design: Design, name: str, stride: int) -> None:
        before = self._last
        strides = [stride, 1]
        if design.block == "bottleneck":
            first = design.bottleneck_stride == "1x1"
            strides = [stride if first else 1, 1 if first else stride, 1]
        for index, step in enumerate(strides, start=1):
            self._conv_norm(f"{name}.conv{index}", f"{name}.bn{index}", step)
            if index < len(strides):
                self._add("Relu")
        if design.shortcut != "none":
            branch, self._last = self._last, before
            self._shortcut(design, name, stride)
            self._add("Add", branch)
        self._add("Relu")

    def _shortcut(self, design: Design, name: str, stride: int) -> None:
        projection = f"{name}.{_NAMES.shortcut}"
        if f"{projection}.0.weight" in self._state:
            self._conv_norm(f"{projection}.0", f"{projection}.1", stride)
        elif design.shortcut == "pad" and stride == 2:
            self._pad(len(self._state[f"{name}.conv1.weight"]) - self._channels_before(name))

    def _channels_before(self, name: str) -> int:
        return self._state[f"{name}.conv1.weight"].shape[1]

    def _pad(self, channels: int) -> None:
        """Every other pixel, and new channels of zeros behind (He's option A)."""
        for key, value in {"start": (0, 0), "end": (2**31, 2**31), "rows_columns": (2, 3)}.items():
            self._array(key, value, np.int64)
        self._add("Slice", "start", "end", "rows_columns", self._array("two", (2, 2), np.int64))
        if channels:
            self._add(
                "Pad", self._array(f"pad{channels}", (0, 0, 0, 0, 0, channels, 0, 0), np.int64)
            )

    def _conv_norm(self, conv: str, norm: str, stride: int) -> None:
        side = self._state[f"{conv}.weight"].shape[-1]
        weight = self._weight(f"{conv}.weight")
        self._add("Conv", weight, strides=[stride] * 2, pads=[side // 2] * 4)
        parts = ("weight", "bias", "running_mean", "running_var")
        self._add(
            "BatchNormalization", *[self._weight(f"{norm}.{p}") for p in parts], epsilon=_EPSILON
        )

    def _weight(self, name: str) -> str:
        return self._array(name, self._state[name])
