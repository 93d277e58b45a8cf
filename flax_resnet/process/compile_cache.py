"""Compiled programs kept on disk, so that a second start compiles nothing."""

import grp
import logging
import math
import os
import pwd
import stat
from pathlib import Path

import jax

from flax_resnet.process.malloc import freed_memory

logger = logging.getLogger(__name__)

MIN_SECONDS = "jax_persistent_cache_min_compile_time_secs"
MAX_BYTES = 4 << 30  # the least recently used programs beyond this go


def keep_compiled(cache_dir: Path) -> None:
    """Has JAX keep what it compiles in `cache_dir`/compiled, a folder for this user alone.

    What is loaded from there is run, so a folder that others may write to or rename is not used. A
    folder that the user gives to JAX (JAX_COMPILATION_CACHE_DIR) is left as it is; where none can
    be made, programs are compiled at each start.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    try:
        folder = cache_dir.resolve() / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        folder.chmod(0o700)
        exposed = next((p for p in folder.parents if others_may_rename_in(p)), None)
        usable = os.access(folder, os.W_OK)
    except OSError:
        return
    if exposed is not None:
        logger.warning(
            "compiled programs are not kept in %s: other users may write to %s", folder, exposed
        )
    elif usable:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
        jax.config.update(MIN_SECONDS, 0.1)


def compile_program(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles, and keeps what can be kept: XLA does not know how to store calls of oneDNN."""
    before = getattr(jax.config, MIN_SECONDS)
    if "__onednn$" in lowered.as_text():
        jax.config.update(MIN_SECONDS, math.inf)
    try:
        return lowered.compile()
    finally:
        jax.config.update(MIN_SECONDS, before)
        freed_memory.after_compiling()


def others_may_rename_in(folder: Path) -> bool:
    """Whether another user than this one and root may replace what is in a folder.

    As ssh checks the folders above its keys; a user's own group of one member is no other user.
    """
    status = folder.stat()
    if status.st_uid not in (0, os.getuid()):
        return True
    if status.st_mode & stat.S_ISVTX:  # /tmp: only owners rename
        return False
    by_group = status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid)
    return bool(by_group or status.st_mode & stat.S_IWOTH)


def _is_own_group(gid: int) -> bool:
    if gid == 0:
        return True
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
