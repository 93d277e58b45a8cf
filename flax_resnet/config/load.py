"""Loading a config file, its command-line changes, and the check of every field."""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.fields import MAX_BLOCKS, RULES
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError, reason, shortened

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


def default_config() -> ConfigDict:
    """Every field's default."""
    return load_config(find_config("base"))


def find_config(name_or_path: str | Path) -> Path:
    """A path that exists, else the config of that name in the checkout."""
    path = Path(name_or_path)
    named = Path(__file__).parents[2] / "configs" / f"{name_or_path}.py"
    return named if not path.exists() and named.exists() else path


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

    try:
        found = Path(path).is_file()
    except OSError as error:  # a name too long, a folder without permission
        raise UserError(f"config file {path} cannot be read: {error.strerror}") from error
    if not found:
        raise UserError(f"config file {path} does not exist{_similar_file(Path(path))}")
    _check_override_names(overrides)
    argv = ["", f"--config={path}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        leftover = values(argv)[1:]
        getattr(values.config, "lock", None)  # an OSError of the file is kept until it is used
    # The config file is the user's own code: it can raise anything, or end the program.
    except (Exception, SystemExit) as error:
        raise UserError(_explain(error, path)) from error
    if leftover:
        raise UserError(f"unexpected argument {_shown(leftover[0])}")
    config = values.config
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() must return a ConfigDict, not {_shown(config)}")
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
    raise UserError(f"config.{shortened(field, 100)}: no such field{hint}")


def _explain(error: BaseException, path: str | Path) -> str:
    from absl import flags

    # A flag's own error: flag --config.batch_size=abc: invalid literal for int ...
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if match and match[1] in RULES:
        words = RULES[match[1]][1]
        return f"config.{match[1]} is {_shown(match[2])}: it must be {words}"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"--{error.flagname}: no such flag; --config.FIELD=VALUE changes a field"
    if isinstance(error, flags.Error):
        if not str(error).startswith("flag --config="):
            return reason(error)
        error = error.__context__ or error
        if str(error).startswith("Error whilst parsing config file") and error.__context__:
            error = error.__context__  # what the file itself raised, without a traceback in it
    return f"config file {path}: {type(error).__name__}: {reason(error)}"


def _shown(value: Any) -> str:
    """A value as Python writes it, short enough to print."""
    try:
        return shortened(repr(value), 100)
    except Exception:  # a whole number of more than 4,300 digits, an object of the user's own
        return f"a value of type {type(value).__name__}"


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
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {reason(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"not a config but {_shown(values)}")
    _check_fields(_flattened(values))  # before ConfigDict, which takes no name of its own methods
    return validate(ConfigDict(_tuples(values)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def changed_field(old: ConfigDict, new: ConfigDict) -> tuple[str, Any, Any] | None:
    """The first field in which a run may not go on under `new`: (name, old, new); None: it may.

    num_epochs may grow where no schedule depends on the length of the run.
    """
    old_values, new_values = flat_fields(old), flat_fields(new)
    for field in sorted(old_values.keys() | new_values.keys()):
        before, now = old_values.get(field), new_values.get(field)
        if field in FREE_FIELDS or before == now:
            continue
        if field == "num_epochs" and new.schedule == "constant" and new.num_epochs > old.num_epochs:
            continue
        return field, before, now
    return None


def flat_fields(config: ConfigDict) -> dict[str, Any]:
    """Every field by its full name, such as design.block, with its value."""
    return _flattened({field: _value(config, field) for field in config})


def _value(config: ConfigDict, field: Any) -> Any:
    try:
        value = config[field]
        return value.to_dict() if isinstance(value, ConfigDict) else value
    # A reference to what the config file leaves open, or that cannot be computed.
    except Exception as error:
        raise UserError(f"config.{field} cannot be read: {reason(error)}") from error


def _flattened(values: dict[str, Any]) -> dict[str, Any]:
    """The design's fields in the place of `design`, in the order of the rest."""
    flat = {}
    for field, value in values.items():
        if field == "design" and isinstance(value, dict):
            flat |= {f"design.{part}": figure for part, figure in value.items()}
        else:
            flat[field] = value
    return flat


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every field alone, then together; returns the config.

    Raises:
      UserError: naming the field, its value and what it may be.
    """
    _check_fields(flat_fields(config))
    _validate_together(config)
    return config


def _check_fields(values: dict[str, Any]) -> None:
    """Checks names and values, each field alone."""
    if "design" in values:
        raise UserError(f"config.design is {_shown(values['design'])}: it must hold fields")
    for field in values:
        _check_field_name(str(field))
    for field, (test, words) in RULES.items():
        if field not in values:
            raise UserError(f"config.{field} is missing: start from configs/base.py")
        if not test(values[field]):
            raise UserError(f"config.{field} is {_shown(values[field])}: it must be {words}")


def _validate_together(config: ConfigDict) -> None:
    design = design_of(config)
    layers = len(design.stage_sizes)
    for field in ("stage_channels", "kernel_sizes", "shortcut_kernels"):
        if len(getattr(design, field)) != layers:
            raise UserError(
                f"config.design.{field} has {len(getattr(design, field))} numbers and "
                f"design.stage_sizes {layers}: each residual layer needs one of both"
            )
    if sum(design.stage_sizes) > MAX_BLOCKS:
        raise UserError(
            f"config.design.stage_sizes is {design.stage_sizes}, {sum(design.stage_sizes):,} "
            f"blocks in all: it must be {MAX_BLOCKS:,} at most"
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
    if list(config.step_boundaries) != sorted(set(config.step_boundaries)):
        raise UserError(
            f"config.step_boundaries is {_shown(config.step_boundaries)}: "
            "each must be above the one before it"
        )
    if config.archive is not None and config.dataset != "cifar10":
        raise UserError(
            f"config.archive is given, and config.dataset is {config.dataset!r}: "
            "the archive is CIFAR-10's, for config.dataset=cifar10"
        )


def check_image_size(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks that images of this (height, width, channels) are large enough for all of the config.

    Raises:
      UserError: naming the image and the field: the design's halvings, its pool, the crop.
    """
    design = design_of(config)
    halvings = len(design.stage_sizes) - 1 + (2 if design.stem == "imagenet" else 0)
    images = f"images of {image_shape[0]} x {image_shape[1]} pixels"
    side = min(image_shape[:2])
    if halvings and side <= 2 ** (halvings - 1):
        raise UserError(
            f"config.design.stage_sizes has {len(design.stage_sizes)} layers: with the stem "
            f"{design.stem!r} they halve {images} {halvings} times, the last time one pixel: "
            "set a larger config.image_size, or take fewer layers"
        )
    height, width = (math.ceil(side / 2**halvings) for side in image_shape[:2])
    if design.pool_size and min(height, width) < design.pool_size:
        raise UserError(
            f"config.design.pool_size is {design.pool_size}, but {images} are "
            f"{height} x {width} at the pool: "
            "set config.image_size, or pool_size=0 for the whole map"
        )
    if config.crop_padding >= side:
        raise UserError(
            f"config.crop_padding is {config.crop_padding}, but {images} would be cropped to "
            f"nothing but padding: it must be below {side}, or set a larger config.image_size"
        )
