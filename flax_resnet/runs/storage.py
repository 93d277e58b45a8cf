"""Arrays on disk through orbax: written in the background, read whole or in part.

Orbax's v1 API is used, which takes over at its release 1.0.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

# One zarr folder per array, and NumPy arrays given: tensorstore (0.1.71 to 0.1.86) never frees what
# it hands to Python as JSON, and orbax asks for such when it writes its common file (OCDBT), and
# for the throughput of every save of JAX arrays. A process would grow by 40 KiB per save.
_COMMON_FILE = False


# One program for all arrays. The copies are not donated to a later step, as the state is.
_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


class _FalseAlarms(logging.Filter):
    """Drops what orbax warns of because it looks for its common file."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "data files not found" not in text and "merge of OCDBT" not in text


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, orbax's false alarms are not logged."""
    logger, alarms = logging.getLogger("absl"), _FalseAlarms()
    logger.addFilter(alarms)
    try:
        yield
    finally:
        logger.removeFilter(alarms)


def begin_writing(folder: Path, tree: Any) -> Any:
    """Begins to write a tree of arrays; they may be overwritten once this returns.

    Of several processes, all call this, and each writes a part of what it holds.

    Returns:
      What to call `result()` on, within `quiet()`, to wait until everything is on disk.
    """
    leaf = jax.tree.leaves(tree)[0]
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        arrays = jax.tree.map(
            np.array, jax.device_get(tree)
        )  # copied: the device may overwrite its own
    else:
        arrays = _copy(tree)
    context = ocp.Context()
    context.array.saving.use_ocdbt = _COMMON_FILE
    with context, quiet():
        return ocp.save_async(folder, arrays)


def read(
    folder: Path, expected: Any, sharding: jax.sharding.Sharding, *, part: bool = False
) -> Any:
    """Reads the arrays that are in `expected`, onto the devices of `sharding`.

    Args:
      folder: as given to begin_writing.
      expected: a tree of arrays or of their shapes.
      sharding: where the arrays go.
      part: `expected` may be a part of what was written; otherwise it must be all of it.

    Raises:
      KeyError: an array is missing, left over or of another shape; the text says which.
    """
    with quiet():
        stored, wanted = _shapes(ocp.metadata(folder).metadata), _shapes(expected)
    # Compared before orbax reads: it would leave reads unfinished, which warn at the end.
    difference = _difference(stored, wanted)
    if difference is None and not part and stored.keys() - wanted.keys():
        difference = f"it also has {min(stored.keys() - wanted.keys())}"
    if difference:
        raise KeyError(difference)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), expected
    )
    context = ocp.Context()
    context.pytree.loading.partial_load = part
    with context, quiet():
        return ocp.load(folder, target)


def _difference(stored: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """The first expected array that is missing or of another shape, in words."""
    for name, shape in sorted(expected.items()):
        if name not in stored:
            return f"it lacks {name}"
        if stored[name] != shape:
            return f"{name} has shape {stored[name]}, not {shape}"
    return None


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a state or of orbax's metadata, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def why(error: Exception) -> str:
    """What went wrong, short: orbax's own texts are pages long."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    # Tensorstore's texts carry the system's message.
    for code in (28, 122, 27, 30, 13, 24):  # ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EMFILE
        if os.strerror(code) in text:
            return os.strerror(code)
    return text[:200] or type(error).__name__
