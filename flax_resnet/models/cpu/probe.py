"""Whether oneDNN can be called here (onednn.py), and whether it is faster than XLA's convolutions.

It is no public part of jaxlib: another version may lack it or want other arguments, and XLA ends
the process that gives it wrong ones. So it is tried in a process of its own, once for each jaxlib
and processor.

    python -m flax_resnet.models.cpu.probe      # prints what it found
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from flax_resnet.process.errors import reason
from flax_resnet.process.files import read_text, write_text

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
SECONDS = 60  # that the process may take; an idle machine needs 2
SHAPE = (32, 16, 16, 64)  # of the images of a trial; 3x3, as many features as channels
STOPPED = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL}
MAX_ERROR = {"float32": 1e-5, "bfloat16": 1e-2}  # relative to the largest value


def onednn_speedup(dtype: str, cache_dir: Path) -> float:
    """How many times as fast as XLA's a convolution of oneDNN is; 0: it is not to be called.

    Args:
      dtype: of the images; for other dtypes than DTYPES there is no oneDNN.
      cache_dir: where the answer is kept.
    """
    if dtype not in DTYPES or sys.platform != "linux" or platform.machine() != "x86_64":
        return 0.0
    file = cache_dir / "onednn" / f"{_machine_digest()}.json"
    try:
        return float(json.loads(read_text(file))[dtype])
    except (OSError, ValueError, KeyError, TypeError):
        found = _in_a_process()
    if found is None:
        return 0.0  # it was stopped: asked again next time
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(found))
    except OSError as error:
        logger.warning("%s cannot be written: %s", file, reason(error))
    return found[dtype]


def _machine_digest() -> str:
    """Of what the answer depends on: jaxlib's version and the processor's features."""
    processor = platform.processor()
    for line in read_text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("model name", "flags")):
            processor += line
        if not line and processor:
            break  # the first core stands for all
    text = f"{importlib.metadata.version('jaxlib')} {processor}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_a_process() -> dict[str, float] | None:
    """What `try_onednn` finds for each dtype; None: no answer."""
    command = [sys.executable, "-m", "flax_resnet.models.cpu.probe"]
    folder = Path(__file__).parents[3]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            timeout=SECONDS,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode in STOPPED:
        return None
    try:
        return {dtype: float(json.loads(done.stdout)[dtype]) for dtype in DTYPES}
    except (ValueError, KeyError, TypeError):  # it crashed, or could not compile
        return dict.fromkeys(DTYPES, 0.0)


def try_onednn(dtype: str) -> float:
    """As `onednn_speedup`, in this process, which it may end."""
    import jax
    import jax.numpy as jnp

    from flax_resnet.models.cpu import onednn

    def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return onednn.conv(x, kernel, 1, 1)

    x = jax.random.normal(jax.random.key(0), SHAPE, dtype)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, SHAPE[3], SHAPE[3]), dtype)
    results, seconds = [], []
    for convolve in (native, direct):
        compiled = jax.jit(convolve).lower(x, kernel).compile()
        results.append(compiled(x, kernel).astype(jnp.float32))
        times = []
        for _ in range(7):
            start = time.perf_counter()
            compiled(x, kernel).block_until_ready()
            times.append(time.perf_counter() - start)
        seconds.append(statistics.median(times))
    error = jnp.abs(results[0] - results[1]).max() / jnp.abs(results[0]).max()
    return seconds[0] / seconds[1] if error <= MAX_ERROR[dtype] else 0.0


if __name__ == "__main__":
    print(json.dumps({dtype: round(try_onednn(dtype), 2) for dtype in DTYPES}))
