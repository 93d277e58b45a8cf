"""What computes a run's convolutions: XLA, or models/cpu."""

import collections
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from flax_resnet.config.build import build_model
from flax_resnet.config.load import design_of
from flax_resnet.models.cost import ImageShape, convolutions
from flax_resnet.models.cpu import conv
from flax_resnet.models.cpu.conv import IMPLEMENTATIONS, Pick, Shape
from flax_resnet.models.cpu.measure import SECONDS, Timings, has_onednn, known, measure
from flax_resnet.models.layers import Convolve
from flax_resnet.process.errors import UserError
from flax_resnet.process.paths import default_cache_dir

logger = logging.getLogger(__name__)

# The name of a rule; or, for each shape, what computes it in training and in evaluation.
Choice = str | tuple[tuple[str, str, str], ...]

RULES: dict[str, Pick | None] = {
    "native": None,
    "winograd": conv.without_onednn,
    "onednn": conv.with_onednn,
    "onednn+winograd": conv.with_onednn_and_winograd,
}

# An estimate of what the fastest saves of XLA's time, of a multiply-add (forward) in a training
# step: half of what it is for the revised network on 2 cores (20.5 ms an image; 5.9 with these).
SAVED_SECONDS = 3e-11
# Winograd's algorithm keeps 2.25 times the images for its gradient, and other layers lose the
# cache: where it gained up to a sixth alone, ResNet-50 was slower (docs/performance_notes.md).
WINOGRAD_FACTOR = 1.2
MIN_SAVED_SECONDS = 1.0  # tracing the network to find its shapes takes nearly as long
START_SECONDS = 3.0  # of the process that measures


@functools.cache
def convolve(choice: Choice, *, evaluation: bool = False) -> Convolve:
    """What a network calls for its convolutions.

    Args:
      choice: of `choose_conv`.
      evaluation: what compiles fast: an evaluation, or an epoch's short last batch. Winograd's
        algorithm is left out.
    """
    if isinstance(choice, str):
        fast = {"winograd": "native", "onednn+winograd": "onednn"}
        pick = RULES[fast.get(choice, choice) if evaluation else choice]
    else:
        pick = _look_up({shape: names[evaluation] for shape, *names in choice})
    return pick and functools.partial(conv.convolve, pick=pick)


def _look_up(table: Mapping[str, str]) -> Pick:
    return lambda shape: table.get(str(shape), "native")


def words(choice: Choice) -> str:
    """The names of what computes, the most frequent first."""
    if isinstance(choice, str):
        return choice
    names = collections.Counter(name for _, name, _ in choice)
    return " and ".join(name for name, _ in names.most_common())


def parse_choice(record: Any) -> Choice:
    """A choice as JSON gives it back.

    Raises:
      ValueError: it is none.
    """
    if isinstance(record, str) and record in RULES:
        return record
    if not isinstance(record, list):
        raise ValueError(f"conv must be a list, or one of {', '.join(RULES)}")
    choice = []
    for entry in record:
        match entry:
            case [str(shape), str(training), str(evaluation)]:
                choice.append((shape, training, evaluation))
            case _:
                raise ValueError("conv must list a shape and two names each")
    if unknown := {name for _, *names in choice for name in names} - IMPLEMENTATIONS.keys():
        raise ValueError(f"conv has {min(unknown)!r}, not one of {', '.join(IMPLEMENTATIONS)}")
    return tuple(choice)


def computable(choice: Choice, dtype: str, devices: Sequence[Any]) -> bool:
    """Whether `devices` compute a choice, which may have been made on another machine."""
    if isinstance(choice, str):
        named = choice.split("+")
    else:
        named = [name for _, *names in choice for name in names]
    if "onednn" not in named:
        return True
    return devices[0].platform == "cpu" and has_onednn(dtype, default_cache_dir())


def conv_shapes(config: ConfigDict, image_shape: ImageShape) -> collections.Counter[Shape]:
    """The convolutions of a config's network, and how often each is there.

    Args:
      config: checked by config.validate.
      image_shape: (height, width, channels).
    """
    shapes: collections.Counter[Shape] = collections.Counter()

    def note(shape: Shape) -> str:
        shapes[shape] += 1
        return "native"

    model = build_model(config, 2, functools.partial(conv.convolve, pick=note))
    images = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    jax.eval_shape(model.init, jax.random.key(0), images)
    return shapes


def choose_conv(
    config: ConfigDict, image_shape: ImageShape, total_images: int, devices: Sequence[Any]
) -> Choice:
    """What computes the convolutions of a new run.

    'auto' is XLA; but on one CPU device, of each convolution what is the fastest on this machine,
    if that was measured before, or if measuring it now takes less than what it will save.

    Args:
      config: checked by config.validate.
      image_shape: (height, width, channels).
      total_images: images that the whole run trains on, all epochs together; one that is only
        evaluated is a third.
      devices: the jax.Devices that share a batch.

    Raises:
      UserError: `devices` cannot compute config.conv.
    """
    if config.conv != "auto":
        if not computable(config.conv, config.dtype, devices):
            raise UserError(
                f"config.conv is {config.conv}, but oneDNN does not compute {config.dtype} on this "
                f"{devices[0].device_kind}: use auto",
                code="unavailable",
                field="config.conv",
            )
        return config.conv
    if devices[0].platform != "cpu" or len(devices) > 1:
        return "native"
    work = total_images * sum(c.multiply_adds for c in convolutions(design_of(config), image_shape))
    if work * SAVED_SECONDS < MIN_SAVED_SECONDS:
        return "native"
    shapes, cache_dir = conv_shapes(config, image_shape), default_cache_dir()
    timings = known(shapes, config.batch_size, cache_dir)
    if new := shapes.keys() - timings.keys():
        if work * SAVED_SECONDS < START_SECONDS + SECONDS * len(new):
            return "native"
        logger.info(
            "timing the network's %d convolutions on this processor, once: up to %.0f s",
            len(new),
            START_SECONDS + SECONDS * len(new),
        )
        timings |= measure(new, config.batch_size, cache_dir)
    if config.dtype == "bfloat16" and not has_onednn(config.dtype, cache_dir):
        logger.warning(
            "note: oneDNN does not compute bfloat16 on this processor, and XLA is slow at it: "
            "float32 is probably faster"
        )
    return fastest(shapes, timings, total_images)


def fastest(
    shapes: Collection[Shape], timings: Mapping[Shape, Timings], total_images: int
) -> tuple[tuple[str, str, str], ...]:
    """Of each convolution what takes the least time for so many images, compiling included."""

    def name(found: Timings, *, without: str = "") -> str:
        def total(name: str) -> float:
            factor = WINOGRAD_FACTOR if name == "winograd" else 1
            return found[name].compile_seconds + total_images * factor * found[name].seconds

        return min((name for name in found if name != without), key=total, default="native")

    measured = {shape: timings.get(shape, {}) for shape in shapes}
    return tuple(
        (str(shape), name(found), name(found, without="winograd"))
        for shape, found in measured.items()
    )
