"""The constants of the cost model's `cpu`, measured here, and what its predictions are worth.

    python -m benchmarks.cost_model_fit

Steps of some networks (FIT) give the constants. Those of others (CHECK), which the fit has not
seen, tell how far predictions are off, from the simplest model to the whole one. All are timed in
turns, with oneDNN's convolutions; the shortest step counts, as other load can only add to it.
Then two processes on this machine give the time of an all-reduce over loopback, and train: their
steps are predicted from those of one process.

The compilations take some ten minutes, the timing three.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from scipy.optimize import least_squares

from benchmarks import measure
from benchmarks.cost_model import (
    DEVICES,
    Device,
    Operation,
    all_reduce_seconds,
    all_reduces,
    compute_parts,
    memory_bytes,
    operations,
    predict,
)
from benchmarks.throughput import NUM_CLASSES, config_file, matrix_rate, random_chunk
from flax_resnet.config.build import abstract_checkpoint, build_train_step
from flax_resnet.config.conv_choice import convolve
from flax_resnet.config.load import load_config
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums
from flax_resnet.process.compile_cache import compile_program, keep_compiled
from flax_resnet.process.distributed import joined, place_from
from flax_resnet.process.paths import default_cache_dir
from tests.groups import outputs, start_group


@dataclasses.dataclass(frozen=True)
class Case:
    """A training whose step is timed: a name of configs/ (or 'tiny'), batch size and image side."""

    model: str
    batch_size: int
    side: int

    def config(self, dtype: str = "float32") -> ConfigDict:
        """Its config."""
        overrides = [f"--config.batch_size={self.batch_size}", f"--config.dtype={dtype}"]
        return load_config(config_file(self.model), overrides)


# On either side wide and narrow, basic and bottleneck, pooled and strided; small and large batches.
FIT = (
    Case("revised", 128, 32),
    Case("revised", 16, 32),
    Case("revised", 16, 64),
    Case("resnet20", 128, 32),
    Case("resnet20", 32, 32),
    Case("laptop", 64, 32),
    Case("imagenet_resnet18", 16, 96),
    Case("imagenet_resnet50", 8, 64),
)
CHECK = (
    Case("resnet18", 32, 32),
    Case("plain20", 64, 32),
    Case("efficient_resnet", 32, 32),
    Case("airbench94", 64, 32),
    Case("imagenet_resnet50", 16, 96),
    Case("imagenet_resnet34", 8, 128),
    Case("resnet56", 64, 32),
    Case("best_5m", 32, 32),
    Case("revised", 64, 48),
    Case("imagenet_resnet101", 8, 64),
    Case("imagenet_resnet18", 32, 64),
    Case("imagenet_resnet50", 4, 224),
)
# Images/s measured elsewhere: device, how many, config, batch, dtype, images/s, and whether
# cost_model.py's shares were fitted on it. NVIDIA's and Flax's ResNet-50 as named there, Flax's
# from its steps and hours, which contain evaluations; this program's from docs/performance.md and
# docs/recipes.md.
RESNET50 = "imagenet_resnet50"
PUBLISHED = (
    ("v100", 1, RESNET50, 256, "bfloat16", 1200, True),
    ("a100", 1, RESNET50, 256, "bfloat16", 2470, True),
    ("a100", 1, RESNET50, 256, "float32", 938, True),
    ("v3", 8, RESNET50, 1024, "bfloat16", 125_100 * 1024 / (4.4 * 3600), True),
    ("v100", 1, RESNET50, 128, "float32", 367, False),
    ("v100", 8, RESNET50, 2048, "bfloat16", 8322, False),
    ("v100", 8, RESNET50, 2048, "bfloat16", 62_500 * 2048 / (4.3 * 3600), False),
    ("a100", 8, RESNET50, 2048, "bfloat16", 16_621, False),
    ("a100", 8, RESNET50, 2048, "float32", 7248, False),
    ("v3", 32, RESNET50, 1024, "bfloat16", 125_100 * 1024 / (2.1 * 3600), False),
    ("h100", 1, "revised", 128, "float32", 48_800, False),
    ("h100", 1, "airbench94", 2000, "float32", 163_000, False),
    ("h100", 1, "fast", 1000, "float32", 70_000, False),
)
# Trained by two processes, and bytes that they add up.
LOOPBACK = (Case("resnet20", 32, 32), Case("revised", 16, 32), Case("laptop", 64, 32))
SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 25)
QUICK = (Case("tiny", 8, 32), Case("tiny", 16, 16), Case("tiny", 8, 16))


ONEDNN = "onednn"  # what computes the convolutions; XLA's own have no rate that shapes explain


def prepare(case: Case, conv: str, devices: Sequence[Any]) -> tuple[Callable[[], None], int]:
    """Compiles. Each call takes a step and waits for it; the bytes are those that XLA reserves.

    The weights are random numbers: the network's own initialization takes minutes to compile.
    """
    config, shape = case.config(), (case.side, case.side, 3)
    rng = np.random.default_rng(0)

    def array(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim > 1:
            return rng.normal(0, 0.05, leaf.shape).astype(leaf.dtype)
        return np.ones(leaf.shape, leaf.dtype) if leaf.ndim else np.zeros((), leaf.dtype)

    parallel = DataParallel(devices=devices)
    abstract, _ = abstract_checkpoint(config, NUM_CLASSES, shape)
    step = build_train_step(config, NUM_CLASSES, 1, convolve(conv))
    state, sums, hparams = parallel.replicate(
        (
            jax.tree.map(array, abstract),
            MetricSums.zeros(),
            {name: np.float32(value) for name, value in step.hparams.items()},
        )
    )
    rows = parallel.rows(case.batch_size)
    chunk = (a[:, rows] for a in random_chunk(1, case.batch_size, shape))
    placed = parallel.place(*chunk, batch_size=case.batch_size)
    program = compile_program(parallel.compile_train(step).lower(state, sums, placed))

    def call() -> None:
        nonlocal state, sums
        state, sums = program(state, sums, placed.arrays, hparams)
        jax.block_until_ready((state, sums))

    needs: Any = program.memory_analysis()
    return call, needs.argument_size_in_bytes + needs.temp_size_in_bytes


# From the simplest model to the whole: the constants that are fitted. The others are measured alone
# (none: bytes cost nothing) or NEUTRAL. Rates that depend on the channels, and another rate of the
# kernel's gradients, were tried: they fit better and predict no better.
LADDER = {
    "FLOPs at the rate of a matrix product": None,
    "and bytes at the bandwidth of an addition": (),
    "both rates fitted": ("rate", "bandwidth"),
    "and that of the overlapping max pool": ("rate", "bandwidth", "overlapping_pool"),
    "and the start of an operation": (
        "rate", "bandwidth", "overlapping_pool", "operation_seconds",
    ),
}  # fmt: skip
NEUTRAL = {"overlapping_pool": 1.0, "operation_seconds": 1e-9}


def device_of(constants: Mapping[str, float]) -> Device:
    """A device that computes with these constants; it has no others to talk to."""
    return Device(
        rates={"float32": constants["rate"]},
        bandwidth=constants["bandwidth"],
        overlapping_pool=constants["overlapping_pool"],
        operation_seconds=constants["operation_seconds"],
        memory=0, per_host=1, link=1, link_seconds=0, network=1, network_seconds=0, overlap=0,
        cores=1,
    )  # fmt: skip


def predicted(work: Sequence[Operation], constants: Mapping[str, float]) -> float:
    """Seconds of a step."""
    parts = compute_parts(work, device_of(constants), "float32")
    return sum(parts.values()) - parts["backward"]


def fit(
    measured: Mapping[Case, float], start: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """Constants that give the measured steps, by least squares of the logarithms of the ratios."""
    work = {case: work_of(case) for case in measured}

    def constants(logs: Sequence[float]) -> dict[str, float]:
        return {**start, **dict(zip(names, map(float, np.exp(logs)), strict=True))}

    def errors(logs: Sequence[float]) -> list[float]:
        at = constants(logs)
        return [np.log(predicted(work[case], at) / seconds) for case, seconds in measured.items()]

    guess = {**start, "overlapping_pool": 3.0, "operation_seconds": 2e-5}
    found = least_squares(errors, [np.log(guess[name]) for name in names])
    return constants(found.x)


def work_of(case: Case, share: int = 1) -> list[Operation]:
    """The operations of a device with one of so many shares of the batch."""
    batch = case.batch_size // share
    return list(operations(case.config(), case.side, NUM_CLASSES, batch))


def bandwidth() -> float:
    """Bytes/s of adding two arrays too large for the caches into a third, the best of ten."""
    a, b = jnp.ones(1 << 26), jnp.zeros(1 << 26)
    add = jax.jit(jnp.add)
    add(a, b).block_until_ready()
    seconds = measure.interleave({"": lambda: add(a, b).block_until_ready()}, rounds=10)[""]
    return 3 * a.nbytes / min(seconds)


def fit_and_check(
    seconds: Mapping[Case, float], fitted_on: Sequence[Case], alone: Mapping[str, float]
) -> tuple[list[dict[str, Any]], dict[str, float], dict[Case, float]]:
    """The errors of each model of the ladder; the constants and errors of the last.

    Args:
      seconds: of a step of each case.
      fitted_on: the cases whose steps a model may see.
      alone: 'rate' and 'bandwidth' as measured alone.
    """
    rows, constants, off = [], {}, {}
    for name, fitted in LADDER.items():
        constants = {**NEUTRAL, **alone}
        if fitted is None:
            constants["bandwidth"] = float("inf")
        elif fitted:
            constants = fit({case: seconds[case] for case in fitted_on}, constants, fitted)
        off = {case: predicted(work_of(case), constants) / s - 1 for case, s in seconds.items()}
        checks = [abs(error) for case, error in off.items() if case not in fitted_on]
        rows.append(
            {
                "model": name,
                "constants fitted": len(fitted or ()),
                "mean error of the fit": statistics.mean(abs(off[case]) for case in fitted_on),
                "mean error of the checks": statistics.mean(checks),
                "largest": max(checks),
            }
        )
    return rows, constants, off


def worker(args: argparse.Namespace) -> None:
    """One of two processes: prints seconds of all-reduces by size, and of steps by case."""
    with joined(place_from(args.coordinator, args.num_processes, args.process_id)):
        parallel = DataParallel(devices=jax.devices())
        sums = {}
        for size in SIZES:
            ones = np.ones((parallel.num_devices, size // 4), np.float32)
            rows = parallel.rows(len(ones))
            split = NamedSharding(parallel.mesh, PartitionSpec("data"))
            placed = jax.make_array_from_process_local_data(split, ones[rows], ones.shape)
            add = jax.jit(lambda x: x.sum(0), out_shardings=parallel.replicated)
            sums[size] = functools.partial(_wait_for, add, placed)
        steps = {case: prepare(case, "native", jax.devices())[0] for case in LOOPBACK}
        of_sizes = measure.interleave(sums, rounds=args.rounds)
        of_steps = measure.interleave(steps, rounds=args.rounds)
        if jax.process_index() == 0:
            print(json.dumps([[min(s) for s in of.values()] for of in (of_sizes, of_steps)]))


def _wait_for(function: Callable[[Any], Any], x: Any) -> None:
    jax.block_until_ready(function(x))


def loopback(rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Steps of two processes that share this machine, predicted from those of one; and the link.

    XLA's own convolutions compute both.
    """
    calls = {case: prepare(case, "native", jax.devices()[:1])[0] for case in LOOPBACK}
    alone = [min(times) for times in measure.interleave(calls, rounds).values()]
    command = ["-m", "benchmarks.cost_model_fit", "--worker", "--rounds", str(rounds)]
    printed, errors = outputs(start_group(command, 2, devices=1))[0]
    try:
        of_sizes, together = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(errors) from None
    # seconds = link_seconds + 2 (n - 1) / n bytes / link, and 2 (n - 1) / n is 1.
    slope, start = np.polyfit(SIZES, of_sizes, 1, w=1 / np.asarray(of_sizes))
    link = {"link": float(1 / slope), "link_seconds": max(float(start), 0.0)}
    device = dataclasses.replace(
        device_of({**NEUTRAL, "rate": 1, "bandwidth": 1}), per_host=2, **link
    )
    rows = []
    for case, one, found in zip(LOOPBACK, alone, together, strict=True):
        parts = all_reduces(case.config(), case.side, NUM_CLASSES)
        waits = sum(n * all_reduce_seconds(device, 2, size) for n, size in parts)
        expected = one + waits
        rows.append(
            {
                "model": case.model, "batch": case.batch_size, "alone (ms)": 1e3 * one,
                "all-reduces": sum(n for n, _ in parts), "all-reduce (ms)": 1e3 * waits,
                "predicted (ms)": 1e3 * expected, "measured (ms)": 1e3 * found,
                "off": expected / found - 1,
            }
        )  # fmt: skip
    return rows, link


def published() -> list[dict[str, Any]]:
    """Predictions beside what was measured on accelerators, BatchNorm on each device."""
    rows = []
    for device, devices, name, batch, dtype, measured, fitted in PUBLISHED:
        overrides = ["--config.batch_norm=device", f"--config.batch_size={batch}"]
        config = load_config(name, [*overrides, f"--config.dtype={dtype}"])
        side, classes = (224, 1000) if name == RESNET50 else (32, 10)
        step = predict(config, side, classes, DEVICES[device], devices, streamed=False).step
        rows.append(
            {
                "device": f"{devices} {device}", "model": name, "batch": batch, "dtype": dtype,
                "fitted": "yes" if fitted else "", "measured": float(measured),
                "predicted": batch / step, "off": batch / step / measured - 1,
            }
        )  # fmt: skip
    return rows


def case_rows(
    seconds: Mapping[Case, float],
    off: Mapping[Case, float],
    fitted_on: Sequence[Case],
    reserved: Mapping[Case, int],
) -> list[dict[str, Any]]:
    """What was measured of each case, and how far the whole model is off."""
    return [
        {
            "model": case.model,
            "batch": case.batch_size,
            "side": case.side,
            "fitted": "yes" if case in fitted_on else "",
            "seconds": measured,
            "off": off[case],
            "memory_gb": memory_bytes(case.config(), case.side, NUM_CLASSES, case.batch_size) / 1e9,
            "xla_reserves_gb": reserved[case] / 1e9 if case in reserved else None,
        }
        for case, measured in seconds.items()
    ]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, fits and checks; returns what it writes."""
    parser = measure.arguments("cost_model_fit", __doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--published", action="store_true", help="only compare with figures of accelerators"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for option, kind in (("coordinator", str), ("num-processes", int), ("process-id", int)):
        parser.add_argument(f"--{option}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.published:
        return measure.report("cost_model_published", published(), args.output)
    keep_compiled(default_cache_dir())
    if args.worker:
        worker(args)
        return {}
    fitted_on, checks = (QUICK[:2], QUICK[2:]) if args.quick else (FIT, CHECK)
    calls, reserved = {}, {}
    for case in (*fitted_on, *checks):
        print(f"compiling {case}", file=sys.stderr, flush=True)
        calls[case], reserved[case] = prepare(case, ONEDNN, jax.devices()[:1])
    found = measure.interleave(calls, args.rounds)
    seconds = {case: min(times) for case, times in found.items()}
    alone = {"rate": matrix_rate("float32", args.quick), "bandwidth": bandwidth()}
    rows, constants, off = fit_and_check(seconds, fitted_on, alone)
    cases = case_rows(seconds, off, fitted_on, reserved)
    print(measure.format_table(cases))
    more: dict[str, Any] = {"measured_alone": alone, "constants": constants, "cases": cases}
    if not args.quick:
        steps, link = loopback(args.rounds)
        print(measure.format_table(steps))
        more |= {"link": link, "loopback": steps}
    return measure.report("cost_model_fit", rows, args.output, **more)


if __name__ == "__main__":
    main()
