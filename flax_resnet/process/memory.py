"""How much memory this process can still take."""

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes that this process can still allocate without swapping, as the system reports them."""
    limits = []
    try:
        # What Linux can free for us; the free pages alone would leave out the file cache.
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    if not limits:  # macOS has no /proc; sysconf knows its total memory
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:  # a container's own limit (cgroup v2)
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # ValueError: "max", no limit
        pass
    return min(limits)
