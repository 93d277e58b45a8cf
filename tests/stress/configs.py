"""Configs by chance: each is refused in one line that names its field, or can train.

Values for every field of config.FIELDS, sane and not, come in four ways: set in a config, typed on
the command line, written in a config.json, and in a config.json with damaged characters. Before
them each value of VALUES is given to each field alone (in short runs: some of them). What is
accepted must trace (jax.eval_shape) through initialization and a training step, and its schedule
must stay between 0 and its learning rate.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from ml_collections import ConfigDict

from flax_resnet.config.build import abstract_checkpoint, build_schedule, build_train_step
from flax_resnet.config.compat import changed_field
from flax_resnet.config.conv_choice import convolve
from flax_resnet.config.fields import FIELDS, FORMAT
from flax_resnet.config.load import (
    CONFIGS,
    check_image_size,
    default_config,
    from_json,
    load_config,
    to_json,
    validate,
)
from flax_resnet.process.errors import UserError
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

BASE = CONFIGS / "base.py"
STEPS_PER_EPOCH = 7
Changes = dict[str, Any]

# Of every kind, and at the edges of each.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 4, 7, 8, -1, 63, 64, 1000, 10**6, 2**31, 2**32 - 1, 2**63),
    *(10**12, 10**400, 10**5000, 0.0, -0.0, 0.1, 0.5, 0.9, 1.0, 1e-3, 1e-8, 1e300, 1e-300, 5e-324),
    *(float("nan"), float("inf"), -float("inf"), 0.999999, 1 - 1e-12, 3.5),
    *("", " ", "x", "None", "0", "\0", "a\nb", "\ud800", "naïve 猫", "a" * 5000, "~nobody/x", "/"),
    *((), (1,), (2, 1), (3, 3, 3, 3), (1, 3, 5), (8, 4, 4, 2), (1, 2, 3, 4), (4, 3, 2, 1)),
    *((0, 0, 0), (10**9,) * 4, (1000, 1000), (1,) * 17, (1,) * 10**5, (3, True), ("3",), (2.0,)),
    *((0.5, 0.5, 0.5), (0.5, 0.75), (0.75, 0.5), (0.5, 0.5), (float("nan"),) * 3, (1e300,) * 3),
    *([1, 1], [[1]], {}, {"a": 1}, b"bytes", {1, 2}, range(4), 1j, object, print),
    *(np.int64(3), np.float64(0.5), np.float32(0.5), np.bool_(True), np.array([1]), np.str_("x")),
]  # fmt: skip


def names_in(words: str) -> list[str]:
    """The names of a rule for one of several."""
    match = re.match(r"one of (.*?)(, or None)?$", words)
    return match[1].split(", ") if match else []


def is_allowed(field: str, value: Any) -> bool:
    """Whether the field's own rule lets a value pass."""
    return FIELDS[field].rule(value)


SANE: dict[str, list[Any]] = {
    field.name: [field.default]
    + names_in(field.rule.words)
    + [value for value in VALUES if field.rule(value) and not isinstance(value, np.ndarray)]
    for field in FIELDS.values()
}


@st.composite
def designs(draw: st.DrawFn) -> Changes:
    """A design whose tuples are of one length; most can be built."""
    layers = draw(st.integers(1, 5))

    def figures(values: st.SearchStrategy) -> Any:
        return tuple(draw(st.lists(values, min_size=layers, max_size=layers)))

    return {
        "design.stage_sizes": figures(st.integers(1, 2)),
        "design.stage_channels": tuple(sorted(figures(st.sampled_from([1, 2, 3, 8, 16_384])))),
        "design.kernel_sizes": figures(st.sampled_from([1, 3, 5, 63])),
        "design.shortcut_kernels": figures(st.sampled_from([1, 3])),
        "design.pool_size": draw(st.sampled_from([0, 1, 2, 4, None])),
        "design.block": draw(st.sampled_from(["basic", "bottleneck"])),
        "design.shortcut": draw(st.sampled_from(["projection", "pad", None, "none"])),
        "design.stem": draw(st.sampled_from(["cifar", "imagenet"])),
        "image_size": draw(st.sampled_from([None, 64, 33, 8, 1])),
    }


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Up to five fields with values that their rules allow, and at times one of any kind."""
    found: Changes = draw(designs()) if draw(st.booleans()) else {}
    others = [field for field in FIELDS if field not in found]
    for field in draw(st.lists(st.sampled_from(others), max_size=3, unique=True)):
        found[field] = draw(st.sampled_from(SANE[field]))
    if draw(st.integers(0, 3)) == 0 or not found:
        anything = st.one_of(
            st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=20),
            st.tuples(st.integers(), st.integers()), st.lists(st.floats(), max_size=4),
        )  # fmt: skip
        found[draw(st.sampled_from(list(FIELDS)))] = draw(anything)
    return found


def from_values(values: Changes) -> ConfigDict:
    """A config of these values, past ConfigDict's own check of types."""
    nested = default_config().to_dict()
    for field, value in values.items():
        part = nested["design"] if field.startswith("design.") else nested
        part[field.removeprefix("design.")] = value
    return validate(ConfigDict(nested))


def as_typed(values: Changes) -> list[str]:
    """The same on a command line."""
    return [f"--config.{field}={_text(value)}" for field, value in values.items()]


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else str(value)
    except ValueError:  # a whole number of more than 4,300 digits
        return "1" + "0" * 5000


def as_json(values: Changes) -> str:
    """The same in a run's config.json."""
    nested = default_config().to_dict()
    for field, value in values.items():
        part = nested["design"] if field.startswith("design.") else nested
        try:
            json.dumps(value)
            part[field.removeprefix("design.")] = value
        except (TypeError, ValueError):
            part[field.removeprefix("design.")] = repr(type(value))
    return json.dumps({"format": FORMAT, **nested}, indent=2)


@st.composite
def damaged_json(draw: st.DrawFn) -> str:
    """A config.json cut short, with other characters in it, or deeply nested."""
    text = as_json({})
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = start + draw(st.sampled_from([0, 1, 1, 5, len(text)]))
        new = draw(
            st.sampled_from(["", "0", "1", "9" * 5000, '"', "{", "[" * 100_000, "null", ","])
        )
        text = text[:start] + new + text[stop:]
    return text


def check(make: Callable[[], ConfigDict], values: Changes | None) -> str:
    """'refused' or 'accepted'.

    Args:
      make: makes the config.
      values: what was changed; where one is beyond its rule, its field must be named, else a field
        that it does not go with. None: any refusal will do.

    Raises:
      AssertionError: the refusal is not one line, or names no field; or anything that an accepted
        config raises.
    """
    try:
        config = make()
        exercise(config)
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and len(message) < 700, f"not a line: {message!r}"
        if values is not None:
            wrong = [field for field, value in values.items() if not is_allowed(field, value)]
            assert any(f"config.{field}" in message for field in wrong or FIELDS), message
        return "refused"
    return "accepted"


def exercise(config: ConfigDict) -> None:
    """Traces what a training does with a config, on shapes alone."""
    side = config.image_size or 32
    check_image_size(config, (side, side, 3))
    assert changed_field(config, from_json(to_json(config))) is None
    schedule = build_schedule(config, STEPS_PER_EPOCH)
    last = config.num_epochs * STEPS_PER_EPOCH - 1
    rates = [float(schedule(step)) for step in {0, last // 3, last // 2, last}]
    assert all(0 <= rate <= config.learning_rate * 1.0001 for rate in rates), rates
    conv = "winograd" if config.conv == "winograd" else "native"
    step = build_train_step(config, 10, STEPS_PER_EPOCH, convolve(conv))
    state, sums = abstract_checkpoint(config, 10, (side, side, 3))
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    new = jax.eval_shape(step, state, sums, (images, labels))
    assert jax.tree.map(_kind, new) == jax.tree.map(_kind, (state, sums))


def _kind(leaf: Any) -> tuple[Any, ...]:
    return (*leaf.shape, str(leaf.dtype))


def _cases() -> dict[str, tuple[st.SearchStrategy, Callable[[Any], str]]]:
    """Kind of case -> (what is drawn, its check)."""
    return {
        "set": (changes(), lambda c: check(lambda: from_values(c), c)),
        "typed": (changes(), lambda c: check(lambda: load_config(BASE, as_typed(c)), {})),
        "typed text": (
            st.tuples(st.sampled_from(list(FIELDS)), st.text(max_size=30)),
            lambda c: check(lambda: load_config(BASE, as_typed(dict([c]))), {}),
        ),
        "field names": (
            st.text(min_size=1, max_size=30).filter(lambda name: name not in FIELDS),
            lambda c: check(lambda: load_config(BASE, [f"--config.{c}=1"]), None),
        ),
        "config.json": (changes(), lambda c: check(lambda: from_json(as_json(c)), c)),
        "damaged config.json": (damaged_json(), lambda c: check(lambda: from_json(c), None)),
    }


def _shown(case: Any) -> str:
    try:
        return repr(case)[:2000]
    except ValueError:
        return "(it holds a whole number of more than 4,300 digits)"


PAIRS = 3  # of a field and a value, for each case asked for, while there are any
SHARE = {"set": 0.35, "typed": 0.25, "typed text": 0.1, "field names": 0.05}  # others: 0.125


def counted(kind: str, run: Callable[[Any], str], tally: Tally) -> Callable[[Any], None]:
    """A test of one case for hypothesis that counts, and goes on where a case fails."""

    def one(case: Any) -> None:
        if not tally.in_time:
            return
        start, outcome, failure = time.perf_counter(), "", None
        try:
            outcome = run(case)
        except Exception as error:  # whatever it is, it is the finding
            failure = f"{kind} {_shown(case)}\n  {type(error).__name__}: {str(error)[:2000]}"
        tally.add(kind, outcome, time.perf_counter() - start, failure)

    return one


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases; returns 1 if one failed."""
    args = arguments("configs", __doc__, count=2000).parse_args(argv)
    tally = Tally(args)
    pairs = [(field, value) for field in FIELDS for value in VALUES]
    order = np.random.default_rng(args.seed).permutation(len(pairs))
    cases = _cases()
    for index in order[: PAIRS * args.count]:
        for kind in ("set", "typed"):
            counted(f"one value, {kind}", cases[kind][1], tally)(dict([pairs[index]]))
    for kind, (strategy, run) in cases.items():
        settings = hypothesis.settings(
            max_examples=max(1, round(args.count * SHARE.get(kind, 0.125))),
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=[
                hypothesis.HealthCheck.too_slow,
                hypothesis.HealthCheck.data_too_large,
            ],
        )
        test = settings(hypothesis.given(strategy)(counted(kind, run, tally)))
        hypothesis.seed(args.seed)(test)()
    return tally.finish("configs")


if __name__ == "__main__":
    sys.exit(main())
