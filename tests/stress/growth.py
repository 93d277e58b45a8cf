"""Trains many short epochs and measures whether the process grows.

The resident memory after each epoch, and the slope of a line through the later half of them.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.stress import trainings
from tests.stress.arguments import arguments
from tests.stress.tally import Tally

KIB_AN_EPOCH = 20.0  # of growth: a gigabyte in 50,000 epochs


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if the process grows."""
    parser = arguments("growth", __doc__, count=200)
    args = parser.parse_args(argv)
    tally = Tally(args)
    resident = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = trainings.start(folder / "run", folder / "cache", num_epochs=args.count)
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("epoch "):
                status = Path(f"/proc/{process.pid}/status").read_text()
                found = re.search(r"VmRSS:\s+(\d+) kB", status)
                assert found is not None
                resident.append(int(found[1]))
        code = process.wait()
    later = resident[len(resident) // 2 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    problem = None
    if code or len(resident) < args.count:
        problem = f"exit {code} after {len(resident)} epochs: {output[-1:]}"
    elif slope > KIB_AN_EPOCH:
        problem = f"it grows by {slope:.1f} KiB an epoch"
    tally.add("epochs", "trained", 0.0, problem)
    return tally.finish(
        "growth", epochs=len(resident), slope_kib_an_epoch=round(slope, 2),
        resident_mib_first=resident[0] / 1024, resident_mib_middle=later[0] / 1024,
        resident_mib_last=resident[-1] / 1024,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
