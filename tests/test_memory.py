import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from flax_resnet.memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
b"x" * (64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_being_mapped_anew():
    faults = {
        argument: int(subprocess.check_output([sys.executable, "-c", CODE, argument]))
        for argument in ("keep", "leave")
    }
    pages = 10 * (64 << 20) // 4096
    assert faults["leave"] > pages / 2, "nothing to gain here"
    assert faults["keep"] < pages / 100
