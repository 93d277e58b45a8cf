"""Compiled programs kept on disk, so that a second start compiles nothing."""

import os
from pathlib import Path

import jax

MAX_BYTES = 4 << 30  # the least recently used programs beyond this go


def keep_compiled(cache_dir: Path) -> None:
    """Has JAX keep what it compiles in `cache_dir`/compiled, a folder for this user alone.

    What is loaded from there is run, so a folder that others may write to is not used. A folder
    that the user gives to JAX (JAX_COMPILATION_CACHE_DIR) is left as it is; where none can be made,
    programs are compiled at each start.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    folder = cache_dir.absolute() / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            return
        folder.chmod(0o700)
        usable = os.access(folder, os.W_OK)
    except OSError:
        return
    if usable:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
