"""Runs every benchmark, each in a process of its own, and leaves their JSON files in one folder."""

import subprocess
import sys
from collections.abc import Sequence

from benchmarks import measure

NAMES = ("throughput", "end_to_end", "input_pipeline", "startup")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if one of them failed."""
    parser = measure.arguments("all", __doc__)
    args = parser.parse_args(argv)
    failed = []
    for name in NAMES:
        print(f"\n--- {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(args.output)]
        command += ["--quick"] if args.quick else []
        if subprocess.run(command, cwd=measure.ROOT).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
