r"""The time of a training step, predicted from what the design asks for and the machine gives.

    python -m benchmarks.cost_model --config imagenet_resnet50 --device h100 --devices 8 64 1024 \
        --config.batch_size=8192 --config.dtype=bfloat16

Nothing is trained. The design gives a list of operations with their FLOPs and bytes (operations),
the machine its rates (DEVICES). One operation takes as long as the slower of the two (a roofline);
a step takes all of them one after the other, what is added up over the devices, and waits for its
images where the host's cores make them more slowly (predict).

cost_model_fit.py measures the constants of `cpu` and checks predictions on other runs.
docs/cost_model.md tells what they are worth.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks.measure import format_table
from flax_resnet.config.build import abstract_checkpoint
from flax_resnet.config.load import design_of, load_config
from flax_resnet.models.blocks import BLOCKS
from flax_resnet.models.cost import Convolution, ImageShape, convolutions, count, map_shape
from flax_resnet.models.designs import Design
from flax_resnet.optim.muon import NEWTON_SCHULZ_STEPS
from flax_resnet.process.errors import UserError

FLOAT32 = 4  # bytes of a parameter, gradient or BatchNorm statistic, whatever the compute dtype

# Passes over the output of a convolution that BatchNorm and the activation make, each a read or a
# write of all of it. Forward: read for the statistics; read, write. Backward: read it and its
# gradient for the two sums; read both, write.
NORM = 3, 5
JOIN = 1, 2  # of a block: read the shortcut; add the two gradients
# A max pool, in its input's size (its output is a quarter): read, write; read both, write.
POOL = 1.25, 2.25
# Values that an optimizer keeps of each parameter; of others, 1.
SLOTS = {"sgd": 0, "adam": 2, "adamw": 2}

# Images a second that one core makes. Streamed: JPEGs of 110 kB, native decoder, crops of 224
# pixels (docs/benchmarks/cpu_streaming.json). In memory: bytes of uint8 images padded, cropped and
# flipped (docs/performance.md, 603,000 of 32 x 32 x 3).
STREAMED_IMAGES, AUGMENTED_BYTES = 653.0, 603_000.0 * 32 * 32 * 3


@dataclasses.dataclass(frozen=True)
class Operation:
    """One pass over the batch of one device.

    Attributes:
      kind: 'forward', 'input gradient' or 'kernel gradient' of a convolution, 'norm', 'pool',
        'overlapping pool' or 'update'.
      flops: two a multiply-add.
      bytes: read and written.
      backward: whether it belongs to the backward pass.
    """

    kind: str
    flops: float
    bytes: float
    backward: bool = False


@dataclasses.dataclass(frozen=True)
class Device:
    """What the prediction needs of a machine. Rates are those reached, not peaks.

    Attributes:
      rates: FLOP/s of convolutions, by compute dtype.
      bandwidth: bytes/s of its memory.
      memory: bytes.
      overlapping_pool: time of a byte of a 3x3 max pool over that of other bytes.
      operation_seconds: of starting an operation.
      per_host: devices that `link` connects.
      link: bytes/s that a device sends over it, while it receives as much.
      link_seconds: of an all-reduce of nothing over it.
      network: the same between hosts, for each device.
      network_seconds: of an all-reduce of nothing, for each doubling of the hosts.
      overlap: share of the backward pass behind which the gradients' all-reduce can hide.
      cores: of the host, for each device.
      shares_cores: whether it computes on the cores that make its images.
    """

    rates: Mapping[str, float]
    bandwidth: float
    memory: float
    overlapping_pool: float
    operation_seconds: float
    per_host: int
    link: float
    link_seconds: float
    network: float
    network_seconds: float
    overlap: float
    cores: float
    shares_cores: bool = False


# Shares of the published peaks that accelerators reach. Of the memory: fitted on the images/s of
# ResNet-50 that NVIDIA publishes for one V100 (mixed precision) and one A100 (mixed precision, and
# TF32): NVIDIA/DeepLearningExamples 291f0d02, PyTorch/Classification/ConvNets/resnet50v1.5. Of a
# TPU's: on the 4.4 hours, evaluation included, that Flax's example took on a v3-8 (google/flax
# 1dbd90e, examples/imagenet); above 1, as XLA computes parts of BatchNorm within the convolutions
# there. The rest is assumed.
MATRIX_SHARE, MEMORY_SHARE, TPU_MEMORY_SHARE = 0.7, 0.42, 1.16


def _accelerator(
    float32: float, bfloat16: float, bandwidth: float, memory: float, **others: Any
) -> Device:
    """From TFLOP/s (as JAX computes float32: TF32 where there is that), GB/s reached, and GB."""
    rates = {
        "float32": 1e12 * MATRIX_SHARE * float32,
        "bfloat16": 1e12 * MATRIX_SHARE * bfloat16,
    }
    return Device(rates, 1e9 * bandwidth, 1e9 * memory, 1.0, **others)


_DGX = {"operation_seconds": 5e-6, "per_host": 8, "link_seconds": 20e-6, "network_seconds": 10e-6}
_DGX |= {"overlap": 0.0}  # XLA's latency-hiding scheduler is off by default
# A slice of TPUs is one torus: every chip reaches the others over its own links.
_TORUS = {"operation_seconds": 1e-6, "per_host": 1 << 16, "link_seconds": 15e-6, "overlap": 1.0}
_TORUS |= {"network": 1.0, "network_seconds": 0.0}
DEVICES = {
    # Both cores of an AMD EPYC (Zen 5), with oneDNN's convolutions; the link is loopback between
    # two processes. Measured by cost_model_fit.py (docs/benchmarks/cpu_cost_model.json).
    "cpu": Device(
        rates={"float32": 188e9},
        bandwidth=14.7e9,
        memory=24e9,
        overlapping_pool=9.6,
        operation_seconds=111e-6,
        per_host=2,
        link=1.8e9,
        link_seconds=340e-6,
        network=1.0,
        network_seconds=0.0,
        overlap=0.0,
        cores=2,
        shares_cores=True,
    ),
    # NVIDIA's data sheets: H100 SXM (NVLink 450 GB/s each way; DGX: 112 cores, and a NIC of 400
    # Gbit/s for each GPU, of which NCCL reaches 46 to 48 GB/s: NVIDIA/nccl-tests issue 290), A100
    # SXM 80 GB, V100 SXM2 16 GB; 80% of NVLink.
    "h100": _accelerator(
        494.7, 989.4, MEMORY_SHARE * 3350, 80, link=360e9, network=47e9, cores=14, **_DGX
    ),
    "a100": _accelerator(
        156, 312, MEMORY_SHARE * 2039, 80, link=240e9, network=23e9, cores=16, **_DGX
    ),
    "v100": _accelerator(
        15.7, 125, MEMORY_SHARE * 900, 16, link=120e9, network=6e9, cores=5, **_DGX
    ),
    # docs.cloud.google.com/tpu/docs: a chip of v5p (links of 600 GB/s each way, 80% of them; 208
    # virtual cores for 4 chips), a core of v3, two of which are a chip.
    "v5p": _accelerator(459, 459, TPU_MEMORY_SHARE * 2765, 95, link=480e9, cores=26, **_TORUS),
    "v3": _accelerator(61.5, 61.5, TPU_MEMORY_SHARE * 450, 16, link=56e9, cores=6, **_TORUS),
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a step takes, in seconds, bytes and cores.

    Attributes:
      parts: seconds by what they are spent on: 'arithmetic', 'memory', 'starts', 'all-reduce'
        (what the backward pass does not hide) and 'input' (what the device waits for it).
      step: their sum.
      memory: bytes of a device, at the largest.
      input_cores: cores busy with images, for each device.
    """

    parts: dict[str, float]
    step: float
    memory: float
    input_cores: float

    @property
    def binds(self) -> str:
        """What takes most of the step."""
        return max(self.parts, key=self.parts.__getitem__)


def operations(config: ConfigDict, side: int, classes: int, batch: int) -> Iterator[Operation]:
    """What a device computes in a step of `batch` images of `side` x `side` pixels."""
    design, shape = design_of(config), (side, side, 3)
    item = jnp.dtype(config.dtype).itemsize
    layers = convolutions(design, shape)
    for index, layer in enumerate(layers):
        yield from _convolution(layer, batch, item, is_stem=index == 0)
        size, normalized = _outputs(design, layers, index)
        if normalized < size:
            yield from _passes("pool", POOL, batch * size * item)
        yield from _passes("norm", NORM, batch * normalized * item)
        if index == 0 and design.stem == "imagenet":
            yield from _passes("overlapping pool", POOL, batch * size * item)
    if design.shortcut != "none":
        for size in _joined(design, shape):
            yield from _passes("norm", JOIN, batch * size * item)
    yield _update(config, layers, count(design, classes, shape).params)


def _convolution(layer: Convolution, batch: int, item: int, is_stem: bool) -> Iterator[Operation]:
    """Forward and both gradients, each as many FLOPs; images have none."""
    flops = 2.0 * batch * layer.multiply_adds
    inputs = layer.channels * layer.strides**2
    size = math.prod(layer.outputs) * (inputs + layer.features) * batch + layer.weights
    yield Operation("forward", flops, size * item)
    if not is_stem:
        yield Operation("input gradient", flops, size * item, backward=True)
    yield Operation("kernel gradient", flops, size * item, backward=True)


def _passes(kind: str, passes: tuple[float, float], size: float) -> Iterator[Operation]:
    yield Operation(kind, 0.0, passes[0] * size)
    yield Operation(kind, 0.0, passes[1] * size, backward=True)


def _outputs(design: Design, layers: Sequence[Convolution], index: int) -> tuple[int, int]:
    """Values of an image that a convolution puts out, and that BatchNorm takes, after a pool."""
    layer, after = layers[index], layers[min(index + 1, len(layers) - 1)]
    size = math.prod(layer.outputs) * layer.features
    if design.downsample == "pool" and index and after.outputs < layer.outputs:
        return size, math.prod(after.outputs) * layer.features
    return size, size


def _joined(design: Design, shape: ImageShape) -> Iterator[int]:
    """Values of an image after each addition of a shortcut."""
    last = math.prod(map_shape(design, shape)) * BLOCKS[design.block].expansion
    stages = zip(design.stage_sizes, design.stage_channels, strict=True)
    for stage, (blocks, channels) in enumerate(stages):
        yield from [last * channels * 4 ** (len(design.stage_sizes) - 1 - stage)] * blocks


def _update(config: ConfigDict, layers: Sequence[Convolution], params: int) -> Operation:
    """Each parameter, its gradient and what the optimizer keeps: read, checked, written."""
    kept = SLOTS.get(config.optimizer, 1)
    flops = 0.0
    if config.optimizer == "muon":
        for layer in layers:  # gram = x x^T, gram^2 and their product with x
            short, long = sorted((layer.weights // layer.features, layer.features))
            flops += NEWTON_SCHULZ_STEPS * 2.0 * (2 * short**2 * long + short**3)
    return Operation("update", flops, FLOAT32 * params * (4 + 3 * kept), backward=True)


def compute_parts(work: Iterable[Operation], device: Device, dtype: str) -> dict[str, float]:
    """Seconds of a step's operations by what bounds them, and of the backward ones alone."""
    parts: dict[str, float] = {"arithmetic": 0, "memory": 0, "starts": 0, "backward": 0}
    for operation in work:
        by_flops = operation.flops / device.rates[dtype]
        by_bytes = operation.bytes / device.bandwidth
        if operation.kind == "overlapping pool":
            by_bytes *= device.overlapping_pool
        parts["arithmetic" if by_flops > by_bytes else "memory"] += max(by_flops, by_bytes)
        parts["starts"] += device.operation_seconds
        if operation.backward:
            parts["backward"] += max(by_flops, by_bytes)
    return parts


def all_reduces(config: ConfigDict, side: int, classes: int) -> list[tuple[int, float]]:
    """(how many, bytes each) of a step's all-reduces: of the gradients, and of BatchNorm.

    XLA joins the gradients' into one. With batch_norm='global', each BatchNorm takes its two
    statistics over all devices, and in the backward pass their two gradients, which are those of
    its scale and bias as well. Two numbers more are the metrics'.
    """
    design, shape = design_of(config), (side, side, 3)
    params, layers = count(design, classes, shape).params, convolutions(design, shape)
    norms = layers[1:] if design.stem == "whiten" else layers
    values = 2 * sum(layer.features for layer in norms)
    if config.batch_norm != "global":
        return [(1, FLOAT32 * (params + values + 2))]  # running means and variances
    return [(1, FLOAT32 * (params - values + 2)), (2 * len(norms), FLOAT32 * values / len(norms))]


def all_reduce_seconds(device: Device, devices: int, size: float) -> float:
    """Rings within the hosts and, of a share for each device, between them."""
    inside = min(devices, device.per_host)
    hosts = math.ceil(devices / device.per_host)
    seconds = 0.0
    if inside > 1:
        seconds += device.link_seconds + 2 * (inside - 1) / inside * size / device.link
    if hosts > 1:
        seconds += device.network_seconds * math.log2(hosts)
        seconds += 2 * (hosts - 1) / hosts * size / inside / device.network
    return seconds


def memory_bytes(config: ConfigDict, side: int, classes: int, batch: int) -> float:
    """Of one device: the state twice (a step that is not finite changes nothing), gradients, maps.

    The maps that the backward pass needs: of each convolution its output and what BatchNorm and
    the activation make of it; and three of the largest while that is computed.
    """
    design, shape = design_of(config), (side, side, 3)
    state, _ = abstract_checkpoint(config, classes, shape)
    held = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    held += FLOAT32 * count(design, classes, shape).params
    sizes = [math.prod(c.outputs) * c.features for c in convolutions(design, shape)]
    return held + batch * jnp.dtype(config.dtype).itemsize * (2 * sum(sizes) + 3 * max(sizes))


def predict(
    config: ConfigDict, side: int, classes: int, device: Device, devices: int, streamed: bool
) -> Prediction:
    """A step of config.batch_size images on so many devices, which share it equally."""
    if config.batch_size % devices:
        raise UserError(
            f"{devices:,} devices cannot share a batch of {config.batch_size:,} images equally",
            field="config.batch_size",
        )
    if config.dtype not in device.rates:
        raise UserError(f"no rate of {config.dtype} is known of it", field="--device")
    batch = config.batch_size // devices
    work = operations(config, side, classes, batch)
    parts = compute_parts(work, device, config.dtype)
    hidden = device.overlap * parts.pop("backward")
    gradients, *others = (
        number * all_reduce_seconds(device, devices, size)
        for number, size in all_reduces(config, side, classes)
    )
    parts["all-reduce"] = max(0.0, gradients - hidden) + sum(others)
    busy = sum(parts.values())
    rate = STREAMED_IMAGES if streamed else AUGMENTED_BYTES / (side * side * 3)
    input_seconds = batch / rate  # of one core
    waits = input_seconds / device.cores
    parts["input"] = waits if device.shares_cores else max(0.0, waits - busy)
    step = busy + parts["input"]
    memory = memory_bytes(config, side, classes, batch)
    return Prediction(parts, step, memory, input_seconds / step)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Prints a prediction for each number of devices; returns the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="imagenet_resnet50", help="name or file")
    parser.add_argument("--device", choices=DEVICES, default="h100")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64, 1024], metavar="N")
    parser.add_argument("--batch-per-device", type=int, help="in place of config.batch_size")
    parser.add_argument("--image-size", type=int, help="default: the config's, else 32")
    parser.add_argument("--classes", type=int, help="default: 1000 of imagenet2012, else 10")
    parser.add_argument("--images", type=int, help="of an epoch (default: those of the data set)")
    args, overrides = parser.parse_known_args(argv)
    config = load_config(args.config, overrides)
    imagenet = config.dataset == "imagenet2012"
    side = args.image_size or config.image_size or 32
    classes = args.classes or (1000 if imagenet else 10)
    images = args.images or (1_281_167 if imagenet else 50_000)
    streamed = imagenet if config.data_loading == "auto" else config.data_loading == "stream"
    device, rows = DEVICES[args.device], []
    for devices in args.devices:
        if args.batch_per_device:
            config.batch_size = devices * args.batch_per_device
        found = predict(config, side, classes, device, devices, streamed)
        rows.append(
            {
                "devices": devices,
                "batch a device": config.batch_size // devices,
                "step (ms)": 1e3 * found.step,
                "images/s": config.batch_size / found.step,
                "binds": found.binds if found.memory < device.memory else "does not fit",
                **{f"{name} (ms)": 1e3 * seconds for name, seconds in found.parts.items()},
                "memory (GB)": found.memory / 1e9,
                "input cores a device": found.input_cores,
                "epoch (min)": images / config.batch_size * found.step / 60,
            }
        )
    print(f"{config.model}, {side} x {side} pixels, {config.dtype}, {args.device}: predictions")
    print(format_table(rows))
    return rows


if __name__ == "__main__":
    main()
