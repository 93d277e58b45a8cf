"""Loading a config file, command-line overrides, and checking every field."""

import ast
import dataclasses
import difflib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from flax_resnet.config.fields import FIELDS, FORMAT, MAX_BLOCKS, Field, is_int
from flax_resnet.models.blocks import BLOCKS
from flax_resnet.models.cost import map_shape
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.models.whitening import features_of
from flax_resnet.process.errors import Code, UserError, reason, shortened

_PACKAGE = Path(__file__).parents[1]
# Part of an installed package, beside the package in a checkout.
CONFIGS = _PACKAGE / "configs"
if not CONFIGS.is_dir():
    CONFIGS = _PACKAGE.parent / "configs"
_GROUPS = {name[: dot.start()] for name in FIELDS for dot in re.finditer(r"\.", name)}

# What other programs have, by the words of a field's name.
_UNSUPPORTED = re.compile(
    r"(?:^|[._])(dropout|(?:rand|auto)_?aug(?:ment)?"
    r"|swa|amp|loss_scale|early_stopping|patience|distillation|teacher"
    r"|group_norm)(?:_|$)"
)
# What has another name here.
_NAMED_HERE = {
    r"smooth": "label_smoothing",
    r"mix_?up": "mixup",
    r"cut_?mix": "cutmix",
    r"cut_?out|erasing": "cutout",
    r"(^|_)ema(_|$)": "ema_decay",
    r"look_?ahead": "lookahead_steps",
    r"clip": "clip_norm",
    r"accum": "micro_batches",
    r"(^|_)tta(_|$)": "test_views",
    r"lr_scal|scale_lr": "learning_rate_scaling",
    r"sync_?bn|sync_?batch": "batch_norm",
    r"jitter|brightness|contrast|saturation": "color_jitter",
    r"drop_?path|stochastic": "design.stochastic_depth",
    r"squeeze|(^|[._])se(_|$)": "design.squeeze_excitation",
    r"zero_?(init|gamma)": "design.zero_last_scale",
    r"trivial": "trivial_augment",
}


def default_config() -> ConfigDict:
    """A new, locked config with every field's default."""
    return ConfigDict(
        _nested(
            {
                name: placeholder(field.rule.type) if field.default is None else field.default
                for name, field in FIELDS.items()
            }
        )
    ).lock()


def find_config(name_or_path: str | Path) -> Path:
    """The file at a path; where there is none, the config of that name.

    Raises:
      UserError: neither exists, or the path cannot be read.
    """
    path, name = Path(name_or_path), str(name_or_path)
    try:
        for candidate in (path, CONFIGS / f"{name}.py"):
            if candidate.is_file():
                return candidate
    except OSError as error:  # a name too long, a folder without permission
        raise _file_error(name, f"cannot be read: {error.strerror}") from error
    if path.exists():
        raise _file_error(name, "is not a file", "missing")
    known = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in ("__init__", "base"))
    nearby = [] if "\0" in name else [str(p) for p in path.parent.glob("*.py")]
    close = difflib.get_close_matches(name, nearby, 1)
    close += difflib.get_close_matches(path.stem, known, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"by name: {', '.join(known)}"
    raise _file_error(name, f"does not exist; {hint}", "missing")


def _file_error(path: str | Path, problem: str, code: Code = "unreadable") -> UserError:
    return UserError(f"config file {shortened(str(path))!r} {problem}", code=code, field=str(path))


def load_config(path_or_name: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Runs a config file's get_config, applies overrides, checks every field.

    Args:
      path_or_name: a Python file with get_config(), or the name of one in configs/.
      overrides: as typed, such as `['--config.batch_size=256', '--noconfig.flip']`.

    Raises:
      UserError: the file is missing or broken, or a field is unknown or not allowed.
    """
    path = find_config(path_or_name)
    changes = _parse_overrides(overrides)
    try:
        config = _run_file(path)
    # The config file is the user's own code: it can raise anything, or end the program.
    except (Exception, SystemExit) as error:
        raise _file_error(path, f"raised {type(error).__name__}: {reason(error)}") from error
    if not isinstance(config, ConfigDict):
        raise _file_error(path, f"must return a ConfigDict, not {_shown(config)}")
    tuned = config.get("batch_size")
    for name, value in changes.items():
        *groups, last = name.split(".")
        try:
            part = config
            for group in groups:
                part = part[group]
            part[last] = value
        except Exception as error:  # no such field in the user's ConfigDict, or of another type
            raise _field_error(name, f"cannot be set in {path}: {reason(error)}") from error
    _note_tuned_batch_size(config, tuned)
    return validate(config)


def _note_tuned_batch_size(config: ConfigDict, tuned: Any) -> None:
    """Where the learning rate is scaled, from the batch of the file unless another is named."""
    if config.get("learning_rate_scaling", "none") != "none" and "tuned_batch_size" in config:
        if config.tuned_batch_size is None:
            config.tuned_batch_size = tuned


class _Loader(SourceFileLoader):
    """Takes no bytecode from __pycache__, where an edit within the same second goes unnoticed."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run_file(path: Path) -> Any:
    loader = _Loader("config_file", str(path))
    spec = importlib.util.spec_from_file_location("config_file", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.get_config()


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Field -> value of --config.FIELD=VALUE, --config.FIELD VALUE, --[no]config.FLAG."""
    changes, rest = {}, list(overrides)
    while rest:
        argument = rest.pop(0)
        match = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if not match:
            name = shortened(argument.partition("=")[0], 100)
            hint = "; --config.FIELD=VALUE changes a field" if name.startswith("-") else ""
            raise UserError(f"unknown argument {name}{hint}", code="unknown", field=name)
        no, name, text = match.groups()
        _check_name(name)
        is_flag = FIELDS[name].rule.type is bool
        if no and (text is not None or not is_flag):
            raise _field_error(name, "takes a value: --config.FIELD=VALUE")
        if text is None and is_flag:
            text = str(not no)
        elif text is None:
            if not rest or rest[0].startswith("--"):
                raise _field_error(name, "needs a value: --config.FIELD=VALUE", "missing")
            text = rest.pop(0)
        changes[name] = _parse(FIELDS[name], text)
    return changes


def _parse(field: Field, text: str) -> Any:
    if text == "None" and field.rule(None):
        return None
    try:
        value = _PARSERS[field.rule.type](text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, KeyError):
        value = text  # which is of another type, and so refused
    _check_value(field, value)
    return value


def _parse_tuple(text: str) -> tuple[Any, ...]:
    value = ast.literal_eval(text.strip())
    return tuple(value) if isinstance(value, tuple | list) else (value,)


_FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: _FLAGS[text.lower()],
    int: int,
    float: float,
    str: str,
    tuple: _parse_tuple,
}


def _field_error(name: str, problem: str, code: Code = "invalid") -> UserError:
    return UserError(f"config.{name} {problem}", code=code, field=f"config.{name}")


def _check_name(name: str) -> None:
    if name in FIELDS:
        return
    short = shortened(name, 100)
    if _UNSUPPORTED.search(name):
        raise _field_error(short, "is not supported", "unknown")
    close = [field for words, field in _NAMED_HERE.items() if re.search(words, name)]
    close += [known for known in FIELDS if known.endswith(f".{name}")]
    close += difflib.get_close_matches(name, FIELDS, 1, cutoff=0.75)
    hint = f"did you mean config.{close[0]}?" if close else "flax_resnet/config/fields.py has all"
    raise _field_error(short, f"is not a field; {hint}", "unknown")


def _check_value(field: Field, value: Any) -> None:
    if not field.rule(value):
        raise _field_error(field.name, f"is {_shown(value)}: it must be {field.rule.words}")


def _shown(value: Any) -> str:
    """A value as Python writes it, short enough to print."""
    try:
        return shortened(repr(value), 100)
    except Exception:  # an integer of more than 4,300 digits, an object of the user's own
        return f"a value of type {type(value).__name__}"


def design_of(config: ConfigDict) -> Design:
    """The named design with the parts that config.design changes."""
    changes = {
        field: tuple(value) if isinstance(value, list | tuple) else value
        for field, value in config.design.items()
        if value is not None
    }
    if changes.get("pool_size") == 0:
        changes["pool_size"] = None
    return dataclasses.replace(MODELS[config.model], **changes)


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON, a field per line, after the number of its format."""
    return json.dumps({"format": FORMAT, **config.to_dict()}, indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """The inverse of to_json, checked; it also reads older formats.

    Raises:
      UserError: not such a file, a newer format with unknown fields, or a field is not allowed.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {reason(error)}", code="unreadable") from error
    if not isinstance(values, dict):
        raise UserError(f"not a config but {_shown(values)}", code="unreadable")
    format_ = values.pop("format", 1)
    if not is_int(format_) or format_ < 1:
        raise UserError(f"format is {_shown(format_)}: it must be a number", field="format")
    flat = flat_fields(values)
    for name in flat:
        if format_ > FORMAT and name not in FIELDS:
            problem = f"is of a newer program: the run has format {_shown(format_)}, this {FORMAT}"
            raise _field_error(shortened(name, 100), problem, "unknown")
    for name, field in FIELDS.items():
        # Format 1 had no number while fields were added to it.
        if format_ == 1 or format_ < field.since:
            flat.setdefault(name, field.absent)
    _check_fields(flat)  # before ConfigDict, which takes no name of its own methods
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in flat.items()}
    return validate(ConfigDict(_nested(values)))


def flat_fields(values: Any, group: str = "") -> dict[str, Any]:
    """Every field by its full name, such as design.block, with its value.

    Args:
      values: a ConfigDict, or a dict as in its JSON.
      group: what the names begin with, with its dot.

    Raises:
      UserError: a reference cannot be resolved.
    """
    flat = {}
    for key in values:
        name = f"{group}{key}"
        try:
            value = values[key]
        except Exception as error:  # a reference that the file leaves open, or that fails
            raise _field_error(name, f"cannot be read: {reason(error)}") from error
        if name in _GROUPS and isinstance(value, dict | ConfigDict):
            flat |= flat_fields(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of flat_fields, as dicts."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        part = nested
        for group in groups:
            part = part.setdefault(group, {})
        part[last] = value
    return nested


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
    for name in values:
        if name in _GROUPS:
            raise _field_error(name, f"is {_shown(values[name])}: it must hold fields")
        _check_name(name)
    for name, field in FIELDS.items():
        if name not in values:
            raise _field_error(name, "is missing: start from default_config()", "missing")
        _check_value(field, values[name])


def _validate_together(config: ConfigDict) -> None:
    _validate_design(design_of(config))
    if config.optimizer == "adam" and config.weight_decay:
        raise _field_error(
            "weight_decay",
            f"is {config.weight_decay}, but adam has none: use config.optimizer=adamw "
            "(decoupled), or sgd, momentum or nesterov (L2)",
            "conflict",
        )
    if config.warmup_epochs >= config.num_epochs:
        raise _field_error(
            "warmup_epochs",
            f"is {config.warmup_epochs}: it must be below num_epochs ({config.num_epochs})",
            "conflict",
        )
    if list(config.step_boundaries) != sorted(set(config.step_boundaries)):
        raise _field_error(
            "step_boundaries", f"is {_shown(config.step_boundaries)}: it must be increasing"
        )
    if config.learning_rate_scaling != "none" and config.tuned_batch_size is None:
        raise _field_error(
            "tuned_batch_size",
            f"is needed for learning_rate_scaling={config.learning_rate_scaling}: "
            "set the batch that the learning rate was tuned for",
            "missing",
        )
    if config.batch_norm == "group" and config.parallel == "pmap":
        raise _field_error("batch_norm", "is group, which needs config.parallel=jit", "conflict")
    if config.ema_decay and config.lookahead_steps:
        raise _field_error(
            "lookahead_steps", "and ema_decay are both on: set one of them to 0", "conflict"
        )
    if config.resized_crop is not None and config.crop_padding:
        raise _field_error(
            "resized_crop", "and crop_padding are both on: set crop_padding=0", "conflict"
        )
    if config.mixup and config.cutmix:
        raise _field_error("cutmix", "and mixup are both on: set one of them to 0", "conflict")
    if config.archive is not None and config.dataset != "cifar10":
        raise _field_error(
            "archive",
            f"is CIFAR-10's, but config.dataset is {config.dataset!r}: use config.dataset=cifar10",
            "conflict",
        )


def _validate_design(design: Design) -> None:
    stages = len(design.stage_sizes)
    for part in ("stage_channels", "kernel_sizes", "shortcut_kernels"):
        if len(getattr(design, part)) != stages:
            raise _field_error(
                f"design.{part}",
                f"has {len(getattr(design, part))} numbers and design.stage_sizes {stages}: "
                "each stage needs one of both",
                "conflict",
            )
    if sum(design.stage_sizes) > MAX_BLOCKS:
        raise _field_error(
            "design.stage_sizes",
            f"is {design.stage_sizes}, {sum(design.stage_sizes):,} blocks in all: "
            f"it must be {MAX_BLOCKS:,} at most",
        )
    if design.block == "bottleneck" and design.shortcut == "none":
        raise _field_error(
            "design.shortcut", "is 'none', which needs design.block=basic", "conflict"
        )
    if design.stochastic_depth and design.shortcut == "none":
        raise _field_error(
            "design.stochastic_depth",
            f"is {design.stochastic_depth}, which needs shortcuts: set design.shortcut",
            "conflict",
        )
    if design.shortcut == "pad" and list(design.stage_channels) != sorted(design.stage_channels):
        raise _field_error(
            "design.shortcut",
            "is 'pad', which can only add channels, but design.stage_channels is "
            f"{design.stage_channels}: use 'projection'",
            "conflict",
        )
    first = design.stage_channels[0] * BLOCKS[design.block].expansion
    whitened = design.stem == "whiten" and design.downsample == "stride"
    if design.shortcut == "pad" and whitened and features_of(3) > first:
        raise _field_error(
            "design.shortcut",
            f"is 'pad', which can only add channels, but the stem has {features_of(3)} and the "
            f"first stage {first}: use 'projection'",
            "conflict",
        )


def check_image_size(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks that images of this (height, width, channels) are large enough for the config.

    Raises:
      UserError: the images are too small for the design's halvings, its pool or the crop.
    """
    design = design_of(config)
    pooled = design.downsample == "pool"
    halvings = len(design.stage_sizes) - (not pooled) + (2 if design.stem == "imagenet" else 0)
    images = f"images of {image_shape[0]} x {image_shape[1]} pixels"
    side = min(image_shape[:2])
    height, width = map_shape(design, image_shape)
    # Strides round up, and so never leave nothing.
    if not (height and width) or (not pooled and halvings and side <= 2 ** (halvings - 1)):
        raise _field_error(
            "design.stage_sizes",
            f"has {len(design.stage_sizes)} stages: with the stem {design.stem!r} they halve "
            f"{images} {halvings} times, the last time a single pixel: "
            "set a larger config.image_size, or use fewer stages",
            "conflict",
        )
    if design.pool_size and min(height, width) < design.pool_size:
        raise _field_error(
            "design.pool_size",
            f"is {design.pool_size}, but {images} are {height} x {width} at the pool: "
            "set config.image_size, or pool_size=0 for the whole map",
            "conflict",
        )
    if config.crop_padding >= side:
        raise _field_error(
            "crop_padding",
            f"is {config.crop_padding}, but crops of {images} could be all padding: "
            f"it must be below {side}, or set a larger config.image_size",
            "conflict",
        )
