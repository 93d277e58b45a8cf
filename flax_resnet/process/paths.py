"""Paths that the user or the environment names."""

import os
from pathlib import Path

from flax_resnet.process.errors import UserError


def expand_user(path: str, field: str) -> Path:
    """A path with ~ or ~user replaced by the home folder.

    Raises:
      UserError: there is no such user or folder; `field` is named.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{field}: {path} names no home folder; use an absolute path", field=field
        ) from error


def default_cache_dir() -> Path:
    """$FLAX_RESNET_CACHE, else flax_resnet in $XDG_CACHE_HOME, else in ~/.cache.

    Raises:
      UserError: the folder would be in a home folder that does not exist.
    """
    if own := os.environ.get("FLAX_RESNET_CACHE"):
        return expand_user(own, "FLAX_RESNET_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand_user(base, "FLAX_RESNET_CACHE") / "flax_resnet"
