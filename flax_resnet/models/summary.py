"""Layer table of a network: output shapes, parameters, multiply-adds and sizes.

Nothing is computed and no weight allocated: the network is traced on shapes alone, so the
largest one takes seconds.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.models.layers import AvgPool, MaxPool, TilePool, window_of
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.squeeze_excitation import SqueezeExcitation, squeezed_channels
from flax_resnet.models.whitening import PATCH, WhiteningConv
from flax_resnet.report.table import Table

ImageShape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer; activations and the addition of the shortcut, without parameters, have no row.

    Attributes:
      path: the module's name, parts joined by '/', which its parameters have too.
      kind: 'Conv', 'WhiteningConv', 'BatchNorm', 'Dense', 'MaxPool', 'AvgPool' or
        'SqueezeExcitation', whose two linear layers have no rows of their own.
      description: kernel, features and stride, such as '3x3, 64, stride 1'.
      output_shape: (height, width, channels), or (features,) of a linear layer.
      params: number of trainable parameters.
      multiply_adds: of one image: for every output pixel, kernel area times channels in times
        channels out, pixels of the padding included. 0 but for convolutions and linear layers.
    """

    path: str
    kind: str
    description: str
    output_shape: tuple[int, ...]
    params: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network's rows in the order of the forward pass, totals and sizes.

    Attributes:
      rows: the layers.
      params: number of trainable parameters.
      multiply_adds: of the forward pass of one image; twice that in FLOPs.
      params_bytes: size of the parameters in their own dtype, float32 by default.
      batch_stats_bytes: size of BatchNorm's running means and variances.
      activations_bytes: sum of all rows' outputs for one image, forward only, in their dtypes.
        torchsummary's "forward/backward pass size" is twice that, and counts ReLUs too.
      input_bytes: size of one image in the compute dtype.
    """

    rows: tuple[Row, ...]
    params: int
    multiply_adds: int
    params_bytes: int
    batch_stats_bytes: int
    activations_bytes: int
    input_bytes: int


def summarize(model: ResNet, image_shape: ImageShape) -> Summary:
    """Layers and totals of `model` for one image of `image_shape` (height, width, channels)."""
    rows: list[Row] = []
    activations: list[int] = []  # bytes of each row's output

    def record(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        before = len(rows)
        outputs = call(*args, **kwargs)
        if isinstance(context.module, SqueezeExcitation):
            del rows[before:], activations[before:]
        # A module in which no other one was called is a layer.
        if context.method_name == "__call__" and len(rows) == before:
            rows.append(_row(context.module, args[0].shape, outputs.shape))
            activations.append(_bytes(outputs))
        return outputs

    with nn.intercept_methods(record):
        variables = _variable_shapes(model, image_shape)

    return Summary(
        rows=tuple(rows),
        params=_count(variables["params"]),
        multiply_adds=sum(row.multiply_adds for row in rows),
        params_bytes=_bytes(variables["params"]),
        batch_stats_bytes=_bytes(variables["batch_stats"]),
        activations_bytes=sum(activations),
        input_bytes=math.prod(image_shape) * jnp.dtype(model.dtype).itemsize,
    )


def count_parameters(model: ResNet, image_shape: ImageShape) -> int:
    """Number of trainable parameters; BatchNorm's running statistics are none."""
    return _count(_variable_shapes(model, image_shape)["params"])


def format_summary(summary: Summary, title: str) -> str:
    """The table of Figure 4(b) and (c), with multiply-adds added, as plain text.

    Lines stay under 100 characters, for a monospace font. MB are 2**20 bytes, as in the
    figure. Multiply-adds are in G, 10**9.
    """
    cells = [
        (
            row.path,
            f"{row.kind} {row.description}".strip(),
            " x ".join(str(size) for size in row.output_shape),
            f"{row.params:,}",
            f"{row.multiply_adds:,}",
        )
        for row in summary.rows
    ]
    table = Table(("Layer", "Type", "Output shape", "Params", "Mult-adds"), cells, "lllrr").text()
    header, *layers = table.splitlines()
    rule, double_rule = "-" * len(header), "=" * len(header)
    lines = [title, rule, header, double_rule, *layers]
    sizes = {
        "Input": summary.input_bytes,
        "Activations": summary.activations_bytes,
        "Parameters": summary.params_bytes,
        "BatchNorm statistics": summary.batch_stats_bytes,
    }
    lines += [
        double_rule,
        f"Total parameters: {summary.params:,}",
        f"Multiply-adds:    {summary.multiply_adds / 1e9:.3f} G an image, forward",
        rule,
        *(f"{name + ' (MB):':<27}{size / 2**20:>9.2f}" for name, size in sizes.items()),
        rule,
    ]
    return "\n".join(lines)


def _variable_shapes(model: ResNet, image_shape: ImageShape) -> Any:
    """The tree of parameters and statistics with shapes and dtypes in place of arrays."""
    local = model.clone(axis_name=None)  # no mapped axis exists here, and shapes need none
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: local.init(jax.random.key(0), x), images)


def _row(module: nn.Module, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Row:
    """Row of a layer from the shapes, batch of one included, that it takes and gives."""
    description, multiply_adds = "", 0
    match module:
        case nn.Conv():
            (kernel, _), (strides, _) = cast(Any, (module.kernel_size, module.strides))
            description = f"{kernel}x{kernel}, {module.features}, stride {strides}"
            multiply_adds = kernel**2 * inputs[-1] * math.prod(outputs)
        case WhiteningConv():
            description = f"{PATCH}x{PATCH}, {outputs[-1]}, stride 1"
            multiply_adds = PATCH**2 * inputs[-1] * math.prod(outputs)
        case nn.Dense():
            description = f"{inputs[-1]} to {module.features}"
            multiply_adds = inputs[-1] * math.prod(outputs)
        case SqueezeExcitation():
            channels, squeezed = inputs[-1], squeezed_channels(inputs[-1])
            description = f"{channels} to {squeezed} to {channels}"
            multiply_adds = 2 * channels * squeezed
        case MaxPool():
            description = "3x3, stride 2"
        case AvgPool() | TilePool():
            description = "{}x{}".format(*window_of(module.size, inputs[1:3]))
    return Row(
        path="/".join(module.path),
        kind="MaxPool" if isinstance(module, TilePool) else type(module).__name__,
        description=description,
        output_shape=outputs[1:],
        params=_count(module.variables.get("params", {})),
        multiply_adds=multiply_adds,
    )


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in leaves)
