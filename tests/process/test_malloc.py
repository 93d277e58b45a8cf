import platform
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from flax_resnet.process.malloc import keep_freed_memory
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


HUGE_PAGES = """
import re
from flax_resnet.process.malloc import freed_memory, keep_freed_memory

def huge_kb():
    return re.search(r"AnonHugePages:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]

before = open("/proc/self/status").read()
assert keep_freed_memory()
after = open("/proc/self/status").read()
resident = [int(re.search(r"VmRSS:\\s+(\\d+)", text)[1]) for text in (before, after)]
block = b"x" * (64 << 20)
huge = huge_kb()
del block
freed_memory.after_step()  # the first gives freed memory back
block = b"x" * (64 << 20)
print(resident[1] - resident[0], huge, huge_kb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_lie_in_huge_pages_and_none_are_taken_in_advance():
    try:
        enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except FileNotFoundError:
        enabled = "[never]"
    if "[never]" in enabled:
        pytest.skip("the system lends no huge pages")
    output = subprocess.check_output([sys.executable, "-c", HUGE_PAGES], text=True)
    more_resident_kb, *huge_kb = map(int, output.split())
    assert more_resident_kb < 8 << 10
    assert min(huge_kb) > 32 << 10, "none, or none after freed memory was given back"


GIVEN_BACK = """
from flax_resnet.process import malloc
def resident():
    return malloc._resident_bytes() >> 20
assert malloc.keep_freed_memory()
kept = b"x" * (64 << 20)
for _ in range(2):  # the second learns what is usual
    malloc.freed_memory.after_step()
before = resident()
for size in (2 << 20, 256 << 20):
    block = b"x" * size
    del block
    print(resident() - before)
    malloc.freed_memory.after_step()
    print(resident() - before)
block = b"x" * (64 << 20)  # not a quarter
del block
malloc.freed_memory.after_compiling()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_given_back_when_the_process_has_grown_and_after_compiling():
    output = subprocess.check_output([sys.executable, "-c", GIVEN_BACK], text=True)
    small, small_after, large, large_after, compiled = map(int, output.split())  # MiB
    assert 0 <= small <= small_after < 8
    assert large > 200
    assert large_after < 8
    assert compiled < 8
