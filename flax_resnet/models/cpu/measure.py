"""How long each implementation of a convolution takes on this machine, measured once and kept.

oneDNN is no public part of jaxlib: another version may lack it or want other arguments, and XLA
ends the process that gives it wrong ones. So all is measured in a process of its own, which is
asked again without oneDNN where it ends before its answer. What gives wrong results, by the native
convolution, is not listed.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flax_resnet.models.cpu.conv import IMPLEMENTATIONS, Shape, computes
from flax_resnet.process.errors import reason
from flax_resnet.process.files import read_text, write_text
from flax_resnet.process.machine import usable_cores
from flax_resnet.process.malloc import keep_freed_memory

logger = logging.getLogger(__name__)

# A trial takes a batch of the run's size: the transforms of Winograd's kernels do not grow with it.
# But not more images than these, nor than have so many multiply-adds forward.
MAX_IMAGES = 128
MULTIPLY_ADDS = 2_500_000_000
ROUNDS = 6  # the first two touch new memory, and do not count
# Winograd's algorithm takes 2 s to compile, and gains nothing with fewer channels.
WINOGRAD_CHANNELS = 32
SECONDS = 2.0  # an estimate: what a shape takes to measure; ten times that ends the process
STOPPED = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL}
MAX_ERROR = {"float32": 1e-4, "bfloat16": 2e-2}  # relative to the largest value


class Timing(NamedTuple):
    """What an implementation takes.

    Attributes:
      seconds: an image, forward and both gradients (of the images only where they are not given).
      compile_seconds: of that program.
    """

    seconds: float
    compile_seconds: float


Timings = dict[str, Timing]  # by implementation; empty: nothing could be measured


def known(shapes: Collection[Shape], batch_size: int, cache_dir: Path) -> dict[Shape, Timings]:
    """What was measured before of `shapes`, on this processor and with this jaxlib."""
    kept = _kept(_file(cache_dir))
    keys = {shape: _key(shape, batch_size) for shape in shapes}
    return {shape: kept[key] for shape, key in keys.items() if key in kept}


def measure(shapes: Collection[Shape], batch_size: int, cache_dir: Path) -> dict[Shape, Timings]:
    """The timings of `shapes`, measured now and kept; none if that is stopped or takes too long."""
    trials = {_key(shape, batch_size): (_images(shape, batch_size), shape) for shape in shapes}
    answer = _in_a_process(trials, use_onednn=sys.platform == "linux" and _is_x86())
    if answer is None:
        return {}
    file = _file(cache_dir)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(_kept(file) | answer, indent=1))
    except OSError as error:
        logger.warning("%s cannot be written: %s", file, reason(error))
    return {shape: answer[key] for key, (_, shape) in trials.items()}


@functools.cache
def has_onednn(dtype: str, cache_dir: Path) -> bool:
    """Whether oneDNN can be called here, and computes `dtype`: bfloat16 takes AVX-512 on x86.

    If no measured convolution tells, a small one is measured.
    """
    kept = _kept(_file(cache_dir))
    if any(f" of {dtype} " in key and "onednn" in found for key, found in kept.items()):
        return True
    shape = Shape(dtype, 3, 1, 1, 8, 8, 8, 8)
    found = known([shape], 1, cache_dir) or measure([shape], 1, cache_dir)
    return "onednn" in found.get(shape, {})


def _images(shape: Shape, batch_size: int) -> int:
    return max(1, min(batch_size, MAX_IMAGES, MULTIPLY_ADDS // shape.multiply_adds))


def _key(shape: Shape, batch_size: int) -> str:
    return f"{_images(shape, batch_size)} of {shape}"


def _kept(file: Path) -> dict[str, Timings]:
    """By keys; none if there is no file yet, or a damaged one."""
    try:
        return {key: _timings(record) for key, record in json.loads(read_text(file)).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _timings(record: dict[str, list[float]]) -> Timings:
    return {name: Timing(*map(float, record[name])) for name in IMPLEMENTATIONS if name in record}


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def _file(cache_dir: Path) -> Path:
    """Named by what the timings depend on: jaxlib, the processor and the cores."""
    processor = platform.processor()
    if sys.platform == "linux":
        for line in read_text(Path("/proc/cpuinfo")).splitlines():
            # On x86; and on ARM, which has no name there.
            if line.startswith(("model name", "flags", "CPU implementer", "CPU part", "Features")):
                processor += line
            if not line and processor:
                break  # the first core stands for all
    text = f"{importlib.metadata.version('jaxlib')} {usable_cores()} {processor}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_dir / "convolutions" / f"{digest}.json"


def _in_a_process(
    trials: dict[str, tuple[int, Shape]], *, use_onednn: bool
) -> dict[str, Timings] | None:
    """What the process prints; None: it was stopped, or took too long."""
    command = [sys.executable, "-m", "flax_resnet.models.cpu.measure"]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            input=json.dumps({"trials": trials, "use_onednn": use_onednn}),
            capture_output=True,
            timeout=30 + 10 * SECONDS * len(trials),
            text=True,
        )
        code, output = done.returncode, done.stdout
    except (OSError, subprocess.SubprocessError):  # it took too long
        return None
    if code in STOPPED:
        return None
    try:
        answer = json.loads(output)
        return {key: _timings(answer[key]) for key in trials}
    except (ValueError, KeyError, TypeError):  # it crashed, or could not compile
        if use_onednn:
            return _in_a_process(trials, use_onednn=False)
        return {key: {} for key in trials}


def time_shape(shape: Shape, images: int, *, use_onednn: bool) -> Timings:
    """Times each implementation of one shape, in this process, which oneDNN may end."""
    rng = np.random.default_rng(0)
    x, kernel = (
        jax.device_put(rng.standard_normal(sides, np.float32).astype(shape.dtype))
        for sides in (
            (images, shape.height, shape.width, shape.channels),
            (shape.size, shape.size, shape.channels, shape.features),
        )
    )

    def program(name: str) -> tuple[jax.stages.Compiled, float]:
        def outputs(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
            def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
                return IMPLEMENTATIONS[name](x, kernel, shape.strides, shape.padding)

            y, gradients = jax.vjp(convolve, x, kernel)
            dx, dkernel = gradients(y)
            return [y, dkernel] if shape.channels == 3 else [y, dx, dkernel]

        start = time.perf_counter()
        compiled = jax.jit(outputs).lower(x, kernel).compile()
        return compiled, time.perf_counter() - start

    names = [
        name
        for name in IMPLEMENTATIONS
        if computes(name, shape)
        and (name != "onednn" or use_onednn)
        and (name != "chunked" or not use_onednn)  # which always beats it
        and (name != "winograd" or min(shape.channels, shape.features) >= WINOGRAD_CHANNELS)
    ]
    programs = {name: program(name) for name in names}
    expected = programs["native"][0](x, kernel)
    right = [name for name in names if _agrees(programs[name][0](x, kernel), expected, shape.dtype)]
    seconds = dict.fromkeys(right, float("inf"))
    for round in range(ROUNDS):  # in turns: other programs may use the processor for a while
        for name in right:
            if round > 2 and seconds[name] > 2 * min(seconds.values()):
                continue
            start = time.perf_counter()
            jax.block_until_ready(programs[name][0](x, kernel))
            if round >= 2:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: Timing(seconds[name] / images, programs[name][1]) for name in right}


def _agrees(found: list[jax.Array], expected: list[jax.Array], dtype: str) -> bool:
    def error(a: jax.Array, b: jax.Array) -> float:  # in numpy: nothing to compile
        x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
        return float(np.abs(x - y).max() / np.abs(y).max())

    return all(error(a, b) <= MAX_ERROR[dtype] for a, b in zip(found, expected, strict=True))


def main() -> None:
    """Reads {"trials": {key: [images, shape]}, "use_onednn"} as JSON, prints the timings."""
    keep_freed_memory()  # as training does
    asked = json.load(sys.stdin)
    answer = {}
    for key, (images, shape) in asked["trials"].items():
        answer[key] = time_shape(Shape(*shape), images, use_onednn=asked["use_onednn"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
