"""What each config field may be: a test of its value, and the test in words."""

import unicodedata
from collections.abc import Callable
from typing import Any

from flax_resnet.models.designs import MODELS
from flax_resnet.models.layers import KERNEL_INITS
from flax_resnet.optim.optimizers import OPTIMIZERS
from flax_resnet.optim.schedules import SCHEDULES

Rule = tuple[Callable[[Any], bool], str]


def is_int(value: Any) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(low: int, high: int) -> Rule:
    """A whole number within bounds, both included."""
    return lambda v: is_int(v) and low <= v <= high, f"a whole number from {low:,} to {high:,}"


def odd(high: int) -> Rule:
    """An odd whole number from 1 to `high`."""
    return (
        lambda v: is_int(v) and 0 < v <= high and v % 2 == 1,
        f"an odd whole number, at most {high}",
    )


def number(low: float, high: float) -> Rule:
    """A number within bounds, both included; a NaN fails both comparisons."""
    return (
        lambda v: (is_int(v) or isinstance(v, float)) and low <= v <= high,
        f"a number from {low:g} to {high:g}",
    )


def choice(*names: str) -> Rule:
    """One of some texts."""
    return lambda v: isinstance(v, str) and v in names, "one of " + ", ".join(names)


def text() -> Rule:
    """A text, as for a name or a path."""
    return (
        lambda v: isinstance(v, str) and _is_clean(v),
        "a non-empty text without control characters",
    )


def _is_clean(value: str) -> bool:
    # Cc: control characters, of which files' names cannot hold a NUL and lines of a log no line
    # break. Cs: half a UTF-16 character, which is in no encoding.
    return bool(value) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def flag() -> Rule:
    """True or False; 0 and 1 are neither."""
    return lambda v: isinstance(v, bool), "True or False"


def optional(rule: Rule) -> Rule:
    """None, or what `rule` allows."""
    return lambda v: v is None or rule[0](v), f"{rule[1]}, or None"


def tuple_of(rule: Rule, words: str, shortest: int, longest: int) -> Rule:
    """A tuple (a list, as JSON has it) of items that `rule` allows."""
    return (
        lambda v: (
            isinstance(v, tuple | list)
            and shortest <= len(v) <= longest
            and all(rule[0](item) for item in v)
        ),
        words,
    )


# Numbers beyond these bounds are mistakes: with them float32 comes to 0 or to infinity, int32 steps
# overflow, or a network is built for hours.
_MOST = 1_000_000  # images of a batch, epochs, steps
_IMAGES = whole(1, 2**31 - 1)
IMAGE_SIDE = whole(1, 8192)  # pixels; above any network's, below what fills a memory with a batch
_FRACTION = number(0.0, 0.999999)  # float32 holds 24 bits: 0.99999999 would be 1
_MAX_LAYERS = 16
MAX_BLOCKS = 1000  # He et al. 2016, section 4.2, end with 600


def _layers(rule: Rule) -> Rule:
    return optional(
        tuple_of(rule, f"a tuple of 1 to {_MAX_LAYERS}: {rule[1]} a layer", 1, _MAX_LAYERS)
    )


RULES: dict[str, Rule] = {
    "model": choice(*MODELS),
    "design.stage_sizes": _layers(whole(1, MAX_BLOCKS)),
    "design.stage_channels": _layers(whole(1, 16_384)),
    "design.kernel_sizes": _layers(odd(63)),
    "design.shortcut_kernels": _layers(odd(63)),
    "design.pool_size": optional(whole(0, 8192)),
    "design.block": optional(choice("basic", "bottleneck")),
    "design.shortcut": optional(choice("projection", "pad", "none")),
    "design.stem": optional(choice("cifar", "imagenet")),
    "design.bottleneck_stride": optional(choice("1x1", "3x3")),
    "weight_init": choice(*KERNEL_INITS),
    "dtype": choice("float32", "bfloat16"),
    "batch_norm": choice("global", "device"),
    "init_from": optional(text()),
    "dataset": text(),
    "data_dir": optional(text()),
    "archive": optional(text()),
    "image_size": optional(IMAGE_SIDE),
    "train_images": optional(_IMAGES),
    "test_images": optional(_IMAGES),
    "validation_split": whole(0, 2**31 - 1),
    "mean": tuple_of(
        number(-1000.0, 1000.0), "three numbers from -1000 to 1000, one a channel", 3, 3
    ),
    "std": tuple_of(number(1e-6, 1000.0), "three numbers from 1e-06 to 1000, one a channel", 3, 3),
    "crop_padding": whole(0, 1024),
    "flip": flag(),
    "batch_size": whole(1, _MOST),
    "drop_last": flag(),
    "eval_batch_size": whole(1, _MOST),
    "num_epochs": whole(1, _MOST),
    "seed": whole(0, 2**32 - 1),
    "optimizer": choice(*OPTIMIZERS),
    "learning_rate": number(1e-12, 1000.0),
    "schedule": choice(*SCHEDULES),
    "warmup_epochs": number(0.0, 1e6),
    "step_boundaries": tuple_of(
        number(1e-6, 0.999999), "a tuple of 1 to 100 fractions of the run, between 0 and 1", 1, 100
    ),
    "step_factor": number(1e-6, 1.0),
    "momentum": _FRACTION,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "epsilon": number(1e-30, 1000.0),
    "weight_decay": number(0.0, 1000.0),
    "decay": choice("all", "kernels"),
    "on_nan": choice("stop", "skip"),
    "conv": choice("auto", "native", "winograd"),
    "parallel": choice("jit", "pmap"),
    "deterministic": flag(),
    "steps_per_dispatch": optional(whole(1, _MOST)),
    "checkpoint_every_minutes": number(1e-9, 100_000.0),
    "checkpoint_every_steps": optional(whole(1, 2**31 - 1)),
    "reference_log": optional(text()),
}
