"""Whether a run may resume under a changed config."""

from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.fields import FIELDS
from flax_resnet.config.load import flat_fields
from flax_resnet.process.errors import UserError

FREE_FIELDS = frozenset(name for name, field in FIELDS.items() if field.free)


def changed_field(old: ConfigDict, new: ConfigDict) -> tuple[str, Any, Any] | None:
    """The first field that keeps a run from resuming under `new`: (name, old, new); None: none.

    num_epochs may grow where neither learning rate nor Lookahead depends on the length of the run.
    """
    before, now = flat_fields(old), flat_fields(new)
    any_length = new.schedule == "constant" and not (new.lookahead_steps and new.lookahead_power)
    for name in sorted(FIELDS.keys() - FREE_FIELDS):
        grows = name == "num_epochs" and now[name] > before[name] and any_length
        if before[name] != now[name] and not grows:
            return name, before[name], now[name]
    return None


def check_may_resume(run: str, old: ConfigDict, new: ConfigDict, option: str) -> None:
    """Checks that the run of config `old` may resume under `new`.

    Args:
      run: the run's folder, for the message.
      old: what the run was started with.
      new: what it is to resume with.
      option: gives another folder, such as --workdir.

    Raises:
      UserError: naming the field that differs, its old and new value.
    """
    changed = changed_field(old, new)
    if not changed:
        return
    name, before, now = changed
    why = ""
    if name == "num_epochs":
        if new.schedule != "constant":
            why = f" (the {new.schedule} schedule spans the whole run)"
        elif now > before:
            why = " (the decay of Lookahead spans the whole run)"
        else:
            why = " (it may only grow)"
    raise UserError(
        f"{run} was started with config.{name}={before!r}, and now it is {now!r}{why}: "
        f"use the old value, or another {option}",
        code="conflict",
        field=f"config.{name}",
    )
