"""Loading a config file, its command-line changes, and the check of every field."""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.errors import UserError
from flax_resnet.layers import KERNEL_INITS
from flax_resnet.models import MODELS
from flax_resnet.optimizers import OPTIMIZERS
from flax_resnet.resnet import Design
from flax_resnet.schedules import SCHEDULES

# Fields that change no number of a run: they may differ when it goes on.
FREE_FIELDS = frozenset(
    {
        "data_dir",
        "archive",
        "eval_batch_size",
        "checkpoint_every_minutes",
        "checkpoint_every_steps",
        "reference_log",
        "on_nan",  # decides how a run goes on that stopped
        "init_from",  # read at a run's first start only
    }
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Runs a config file's get_config, applies overrides, checks every field.

    Args:
      path: a Python file with get_config().
      overrides: as typed, such as ['--config.batch_size=256', '--noconfig.flip'].

    Raises:
      UserError: the file is missing or broken, or a field is misspelt or out of range.
    """
    # Imported here: absl's flags are needed by the commands that read a config file alone.
    from absl import flags
    from ml_collections import config_flags

    if not Path(path).is_file():
        raise UserError(f"config file {path} does not exist{_similar_file(Path(path))}")
    _check_override_names(overrides)
    argv = ["", f"--config={path}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        leftover = values(argv)[1:]
    except Exception as error:  # the config file is the user's own code: it can raise anything
        raise UserError(_explain(error, path)) from error
    if leftover:
        raise UserError(f"unexpected argument {leftover[0]!r}")
    config = values.config
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() must return a ConfigDict, not {config!r}")
    validate(config)
    return config


def _similar_file(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.py") if p.stem not in ("__init__", "base", "he")]
    close = difflib.get_close_matches(path.name, names, 1) or difflib.get_close_matches(
        path.name + ".py", names, 1
    )
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _check_override_names(overrides: Sequence[str]) -> None:
    for argument in overrides:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match:
            _check_field_name(match[1])


def _check_field_name(field: str) -> None:
    if field in RULES:
        return
    close = difflib.get_close_matches(field, RULES, 1)
    hint = f"; did you mean config.{close[0]}?" if close else " (configs/base.py lists all)"
    raise UserError(f"config.{field}: no such field{hint}")


def _explain(error: Exception, path: str | Path) -> str:
    text = " ".join(str(error).split())
    if text.startswith("flag --"):
        field, _, value_and_reason = text.removeprefix("flag --").partition("=")
        value = value_and_reason.partition(": ")[0]
        words = RULES[field.removeprefix("config.")][1]
        return f"{field} is {value!r}: it must be {words}"
    return f"config file {path}: {type(error).__name__}: {text}"


def design_of(config: ConfigDict) -> Design:
    """The named design with the parts that config.design gives."""
    changes = {
        field: tuple(value) if isinstance(value, list | tuple) else value
        for field, value in config.design.items()
        if value is not None
    }
    if changes.get("pool_size") == 0:
        changes["pool_size"] = None
    return dataclasses.replace(MODELS[config.model], **changes)


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON, a field a line."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The inverse of to_json, checked.

    Raises:
      UserError: not such a file.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"not JSON: {error}") from error
    return validate(ConfigDict(_tuples(values)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def changed_field(old: ConfigDict, new: ConfigDict) -> tuple[str, Any, Any] | None:
    """The first field in which a run may not go on under `new`: (name, old, new); None: it may.

    num_epochs may grow where no schedule depends on the length of the run.
    """
    old_values, new_values = _flat(old), _flat(new)
    for field in sorted(old_values.keys() | new_values.keys()):
        before, now = old_values.get(field), new_values.get(field)
        if field in FREE_FIELDS or before == now:
            continue
        if field == "num_epochs" and new.schedule == "constant" and new.num_epochs > old.num_epochs:
            continue
        return field, before, now
    return None


def _flat(config: ConfigDict) -> dict[str, Any]:
    values = config.to_dict()
    design = values.pop("design")
    return values | {f"design.{field}": value for field, value in design.items()}


# What a field may be: a test and its wording.
Rule = tuple[Callable[[Any], bool], str]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _whole(low: int) -> Rule:
    return lambda v: _is_int(v) and v >= low, f"a whole number from {low} on"


def _odd() -> Rule:
    return lambda v: _is_int(v) and v > 0 and v % 2 == 1, "an odd whole number"


def _number(test: Callable[[float], bool], words: str) -> Rule:
    return lambda v: _is_number(v) and test(v), words


def _choice(*names: str) -> Rule:
    return lambda v: v in names, "one of " + ", ".join(names)


def _text() -> Rule:
    return lambda v: isinstance(v, str) and bool(v), "a non-empty text"


def _flag() -> Rule:
    return lambda v: isinstance(v, bool), "True or False"


def _optional(rule: Rule) -> Rule:
    return lambda v: v is None or rule[0](v), f"{rule[1]}, or None"


def _tuple_of(rule: Rule, words: str, length: int | None = None) -> Rule:
    return (
        lambda v: (
            isinstance(v, tuple | list)
            and len(v) > 0
            and (length is None or len(v) == length)
            and all(rule[0](item) for item in v)
        ),
        words,
    )


_FRACTION = _number(lambda v: 0 <= v < 1, "a number from 0 to below 1")
_POSITIVE = _number(lambda v: v > 0, "a number above 0")
_WHOLE_TUPLE = _tuple_of(_whole(1), "a tuple of whole numbers from 1 on, a number a layer")
_ODD_TUPLE = _tuple_of(_odd(), "a tuple of odd whole numbers, a number a layer")

RULES: dict[str, Rule] = {
    "model": _choice(*MODELS),
    "design.stage_sizes": _optional(_WHOLE_TUPLE),
    "design.stage_channels": _optional(_WHOLE_TUPLE),
    "design.kernel_sizes": _optional(_ODD_TUPLE),
    "design.shortcut_kernels": _optional(_ODD_TUPLE),
    "design.pool_size": _optional(_whole(0)),
    "design.block": _optional(_choice("basic", "bottleneck")),
    "design.shortcut": _optional(_choice("projection", "pad", "none")),
    "design.stem": _optional(_choice("cifar", "imagenet")),
    "design.bottleneck_stride": _optional(_choice("1x1", "3x3")),
    "weight_init": _choice(*KERNEL_INITS),
    "dtype": _choice("float32", "bfloat16"),
    "batch_norm": _choice("global", "device"),
    "init_from": _optional(_text()),
    "dataset": _text(),
    "data_dir": _optional(_text()),
    "archive": _optional(_text()),
    "image_size": _optional(_whole(1)),
    "train_images": _optional(_whole(1)),
    "test_images": _optional(_whole(1)),
    "validation_split": _whole(0),
    "mean": _tuple_of(_number(lambda v: True, ""), "three numbers, one a channel", 3),
    "std": _tuple_of(_POSITIVE, "three numbers above 0, one a channel", 3),
    "crop_padding": _whole(0),
    "flip": _flag(),
    "batch_size": _whole(1),
    "drop_last": _flag(),
    "eval_batch_size": _whole(1),
    "num_epochs": _whole(1),
    "seed": (lambda v: _is_int(v) and 0 <= v < 2**32, "a whole number from 0 to 2**32 - 1"),
    "optimizer": _choice(*OPTIMIZERS),
    "learning_rate": _POSITIVE,
    "schedule": _choice(*SCHEDULES),
    "warmup_epochs": _number(lambda v: v >= 0, "a number from 0 on"),
    "step_boundaries": _tuple_of(
        _number(lambda v: 0 < v < 1, ""), "a tuple of fractions of the run, between 0 and 1"
    ),
    "step_factor": _POSITIVE,
    "momentum": _FRACTION,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "epsilon": _POSITIVE,
    "weight_decay": _number(lambda v: v >= 0, "a number from 0 on"),
    "decay": _choice("all", "kernels"),
    "on_nan": _choice("stop", "skip"),
    "conv": _choice("auto", "native", "winograd"),
    "parallel": _choice("jit", "pmap"),
    "deterministic": _flag(),
    "steps_per_dispatch": _optional(_whole(1)),
    "checkpoint_every_minutes": _POSITIVE,
    "checkpoint_every_steps": _optional(_whole(1)),
    "reference_log": _optional(_text()),
}


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every field alone, then together; returns the config.

    Raises:
      UserError: naming the field, its value and what it may be.
    """
    values = _flat(config) if isinstance(config.get("design"), ConfigDict) else config.to_dict()
    for field in values:
        _check_field_name(field)
    for field, (test, words) in RULES.items():
        if field not in values:
            raise UserError(f"config.{field} is missing: start from configs/base.py")
        if not test(values[field]):
            raise UserError(f"config.{field} is {values[field]!r}: it must be {words}")
    _validate_together(config)
    return config


def _validate_together(config: ConfigDict) -> None:
    design = design_of(config)
    layers = len(design.stage_sizes)
    for field in ("stage_channels", "kernel_sizes", "shortcut_kernels"):
        if len(getattr(design, field)) != layers:
            raise UserError(
                f"config.design.{field} has {len(getattr(design, field))} numbers and "
                f"design.stage_sizes {layers}: each residual layer needs one of both"
            )
    if design.block == "bottleneck" and design.shortcut == "none":
        raise UserError("config.design.shortcut is 'none': plain nets have basic blocks")
    if design.shortcut == "pad" and list(design.stage_channels) != sorted(design.stage_channels):
        raise UserError(
            "config.design.shortcut is 'pad', which can only add channels, and "
            f"design.stage_channels {design.stage_channels} shrink: take 'projection'"
        )
    if config.optimizer == "adam" and config.weight_decay:
        raise UserError(
            f"config.weight_decay is {config.weight_decay}, and adam has none: "
            "take config.optimizer=adamw (decoupled), sgd, momentum or nesterov (L2)"
        )
    if config.warmup_epochs >= config.num_epochs:
        raise UserError(
            f"config.warmup_epochs is {config.warmup_epochs}: it must be below "
            f"num_epochs ({config.num_epochs})"
        )
    if config.archive is not None and config.dataset != "cifar10":
        raise UserError(
            f"config.archive is given, and config.dataset is {config.dataset!r}: "
            "the archive is CIFAR-10's, for config.dataset=cifar10"
        )


def check_image_size(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks that images of this (height, width, channels) reach the average pool large enough.

    Raises:
      UserError: naming the image and the pool.
    """
    design = design_of(config)
    halvings = len(design.stage_sizes) - 1 + (2 if design.stem == "imagenet" else 0)
    height, width = (math.ceil(side / 2**halvings) for side in image_shape[:2])
    if design.pool_size and min(height, width) < design.pool_size:
        raise UserError(
            f"config.design.pool_size is {design.pool_size}, but images of {image_shape[0]} x "
            f"{image_shape[1]} pixels are {height} x {width} at the pool: "
            "set config.image_size, or pool_size=0 for the whole map"
        )
