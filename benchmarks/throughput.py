"""Images a second of this program and of PyTorch, in turns on the same machine.

Images and weights lie on the device: input_pipeline.py measures the feeding, end_to_end.py both.
The PyTorch network is that of the tests, which has the same parameters and gives the same logits.
FLOPs are two a multiply-add: in training, forward and backward, six times those of `summary`.

On a CPU, each case is then run alone in a process, for the seconds to the end of its first step
(imports excluded, nothing compiled before) and the largest memory of the process in five steps.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from flax_resnet.config.build import (
    build_eval_step,
    build_model,
    build_optimizer,
    build_train_step,
)
from flax_resnet.config.conv_choice import Choice, choose_conv, convolve
from flax_resnet.config.load import load_config
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.models.resnet import Design
from flax_resnet.models.summary import summarize
from flax_resnet.process.compile_cache import compile_program, keep_compiled
from flax_resnet.process.malloc import freed_memory
from flax_resnet.process.paths import default_cache_dir

NUM_CLASSES = 10
BATCH_SIZES = {"airbench94": 512, "imagenet_resnet18": 64, "imagenet_resnet50": 32}  # else 128
STEPS_ALONE = 5
CPU_MODELS = (
    "revised",
    "resnet18",
    "resnet20",
    "resnet56",
    "efficient_resnet",
    "airbench94",
    "imagenet_resnet18",
    "imagenet_resnet50",
)
CPU_VARIANTS = (
    ("flax", "native", "float32"),
    ("flax", "auto", "float32"),
    ("flax", "auto", "bfloat16"),
    ("torch", "eager", "float32"),
    ("torch", "channels_last", "float32"),
    ("torch", "channels_last compile", "float32"),
    ("torch", "channels_last", "bfloat16"),
    ("torch", "channels_last compile", "bfloat16"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to train a network, or to use one.

    Attributes:
      framework: 'flax' or 'torch'.
      variant: conv of the config, or PyTorch's memory format and mode.
      dtype: 'float32', 'tf32' (float32 whose products may be rounded to TF32) or 'bfloat16'.
      model: a name of configs/, or 'tiny'.
      batch_size: images a step.
      task: 'training' or 'inference'.
    """

    framework: str
    variant: str
    dtype: str
    model: str
    batch_size: int
    task: str = "training"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """32 pixels, or 64 for ImageNet's networks."""
        side = 64 if self.model.startswith("imagenet") else 32
        return side, side, 3


def cases(quick: bool) -> list[Case]:
    """What is measured where there is a GPU, and where there is none."""
    if quick:
        return [
            Case("flax", "winograd", "float32", "tiny", 8),
            Case("torch", "channels_last", "float32", "tiny", 8),
        ]
    if jax.default_backend() == "cpu":
        return [
            Case(framework, variant, dtype, model, BATCH_SIZES.get(model, 128), task)
            for model in CPU_MODELS
            for task in ("training", "inference")
            for framework, variant, dtype in CPU_VARIANTS
        ]
    return [
        Case(framework, variant, dtype, "revised", batch_size)
        for batch_size in (128, 512, 1024, 2048)
        for dtype in ("float32", "tf32", "bfloat16")
        for framework, variant in (
            ("flax", "native"),
            ("torch", "eager"),
            ("torch", "channels_last"),
            ("torch", "channels_last compile"),
        )
    ]


def case_config(case: Case) -> Any:
    """The config of a case."""
    overrides = [
        f"--config.batch_size={case.batch_size}",
        f"--config.dtype={'bfloat16' if case.dtype == 'bfloat16' else 'float32'}",
    ]
    return load_config(config_file(case.model), overrides)


def conv_of(case: Case) -> Choice:
    """What computes a case's convolutions; for 'auto' as in a long run, measured now if need be."""
    if case.variant != "auto":
        return case.variant
    return choose_conv(case_config(case), case.image_shape, 10**9, jax.devices()[:1])


def config_file(model: str) -> Path:
    """The file of a name of configs/, or of the tiny network of --quick."""
    folder = "benchmarks" if model == "tiny" else "configs"
    return measure.ROOT / folder / f"{model}.py"


def precision(dtype: str) -> Any:
    """What jax.default_matmul_precision takes, which matters on a GPU alone."""
    if jax.default_backend() == "cpu":
        return None
    return {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": None}[dtype]


def random_chunk(
    num_steps: int, batch_size: int, image_shape: tuple[int, int, int] = (32, 32, 3)
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [steps, batch, height, width, 3] and int32 labels [steps, batch]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_steps, batch_size, *image_shape), dtype=np.uint8)
    return images, rng.integers(0, NUM_CLASSES, (num_steps, batch_size), dtype=np.int32)


def flax_call(case: Case, num_steps: int) -> Callable[[], None]:
    """Compiles; each call takes `num_steps` steps as training does and waits for them."""
    if case.task == "inference":
        return flax_inference(case, num_steps)
    config = case_config(case)
    parallel = DataParallel(devices=jax.devices()[:1])
    chunk = parallel.place(*random_chunk(num_steps, case.batch_size, case.image_shape))
    steps = parallel.compile_train(
        build_train_step(config, NUM_CLASSES, num_steps, convolve(conv_of(case)))
    )
    model, optimizer = build_model(config, NUM_CLASSES), build_optimizer(config)
    state = parallel.replicate(init_state(model, optimizer, case.image_shape, config.seed))
    sums = parallel.replicate(MetricSums.zeros())
    with jax.default_matmul_precision(precision(case.dtype)):
        steps.compile_for(state, sums, chunk)

    def call() -> None:
        nonlocal state, sums
        state, sums = steps(state, sums, chunk)
        jax.block_until_ready((state, sums))

    return call


def flax_inference(case: Case, num_steps: int) -> Callable[[], None]:
    """Compiles; each call classifies `num_steps` batches as an evaluation does."""
    config = case_config(case)
    model, optimizer = build_model(config, NUM_CLASSES), build_optimizer(config)
    state = init_state(model, optimizer, case.image_shape, config.seed)
    step = build_eval_step(config, NUM_CLASSES, convolve=convolve(conv_of(case), evaluation=True))
    images, labels = random_chunk(num_steps, case.batch_size, case.image_shape)
    mask, sums = jnp.ones(case.batch_size, bool), MetricSums.zeros()
    batches = [jax.device_put((i, y, mask)) for i, y in zip(images, labels, strict=True)]
    program = compile_program(jax.jit(step).lower(state.variables, sums, batches[0]))

    def call() -> None:
        for batch in batches:
            jax.block_until_ready(program(state.variables, sums, batch))

    return call


def torch_call(case: Case, design: Design, num_steps: int) -> Callable[[], None]:
    """Builds the network; each call takes `num_steps` steps and waits for them."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    in_bfloat16 = case.dtype == "bfloat16"
    channels_last = "channels_last" in case.variant
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = torch_network(case, design).to(device)
    network = network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    update = torch_update(case, network)
    mean = torch.tensor((0.4914, 0.4822, 0.4465), device=device).reshape(3, 1, 1)
    std = torch.tensor((0.2023, 0.1994, 0.2010), device=device).reshape(3, 1, 1)
    images, labels = random_chunk(num_steps, case.batch_size, case.image_shape)
    batches = [
        (torch.tensor(i, device=device), torch.tensor(y, device=device).long())
        for i, y in zip(images, labels, strict=True)
    ]

    def logits(images: Any) -> Any:
        x = ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            return network(x)

    def forward(images: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits(images).float(), labels)

    if case.task == "inference":
        network.eval()
        classify = torch.compile(logits) if "compile" in case.variant else logits

        def infer() -> None:
            with torch.inference_mode():
                for images, _ in batches:
                    classify(images).argmax(1)

        return infer

    if "compile" in case.variant:
        forward = torch.compile(forward)

    def call() -> None:
        torch.backends.cudnn.allow_tf32 = case.dtype != "float32"
        torch.backends.cuda.matmul.allow_tf32 = case.dtype != "float32"
        for images, labels in batches:
            network.zero_grad()
            forward(images, labels).backward()
            update()
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def torch_network(case: Case, design: Design) -> Any:
    """The network of a case in PyTorch."""
    from tests.airbench_twin import AirbenchNet
    from tests.torch_twin import TorchResNet

    if case.model == "airbench94":
        return AirbenchNet(design.stage_channels)
    return TorchResNet(design, NUM_CLASSES)


def torch_update(case: Case, network: Any) -> Callable[[], Any]:
    """A step of Adam, as ours, or of airbench94's own optimizers."""
    import torch

    from tests.airbench_twin import Optimizers

    if case.model == "airbench94":
        return functools.partial(Optimizers(network, case.batch_size).step, 1.0)
    return torch.optim.Adam(network.parameters(), lr=1e-3).step


@functools.cache
def matrix_rate(dtype: str, quick: bool) -> float:
    """FLOP/s of this device in one large matrix product, the best of ten."""
    size = 256 if quick else 2048 if jax.default_backend() == "cpu" else 8192
    kind = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    a = jax.random.normal(jax.random.key(0), (size, size), kind)
    with jax.default_matmul_precision(precision(dtype)):
        product = jax.jit(lambda a: a @ a).lower(a).compile()
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready([product(a) for _ in range(5)])
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * size**3 / best


def make_call(case: Case, num_steps: int) -> Callable[[], None]:
    """A call that takes `num_steps` steps."""
    if case.framework == "flax":
        return flax_call(case, num_steps)
    return torch_call(case, build_model(case_config(case), NUM_CLASSES).design, num_steps)


def measure_group(group: Sequence[Case], num_steps: int, rounds: int, quick: bool) -> list[dict]:
    """The rows of cases that are run in turns; a case that cannot run has its reason instead."""
    calls, failed = {}, {}
    for case in group:
        print(f"preparing {case}", file=sys.stderr, flush=True)
        try:
            call = make_call(case, num_steps)
            call()
            calls[case] = call
        except Exception as error:  # a missing PyTorch or compiler, too little memory
            failed[case] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    seconds = measure.interleave(calls, rounds)
    torch_medians = {
        case: statistics.median(s) for case, s in seconds.items() if case.framework == "torch"
    }
    best_torch = min(torch_medians, key=torch_medians.__getitem__, default=None)
    alike = {c.dtype: c for c in torch_medians if c.variant == "channels_last"}
    rows = []
    for case in group:
        row: dict[str, Any] = dataclasses.asdict(case)
        if case in failed:
            rows.append(row | {"note": failed[case]})
            continue
        config = case_config(case)
        macs = summarize(build_model(config, NUM_CLASSES), case.image_shape).multiply_adds
        images = num_steps * case.batch_size
        per_second = images / statistics.median(seconds[case])
        flops = per_second * (6 if case.task == "training" else 2) * macs
        row |= {
            "images_per_second": round(per_second, 1),
            "tflop_per_second": flops / 1e12,
            "share_of_matrix_rate": flops / matrix_rate(case.dtype, quick),
        }
        for name, other in (
            ("over_channels_last", alike.get(case.dtype)),
            ("over_best_torch", best_torch),
        ):
            row[name] = other and measure.median_ratio(seconds[other], seconds[case])
        first, peak = alone(case) if jax.default_backend() == "cpu" and not quick else (None, None)
        rows.append(row | {"first_step_s": first, "peak_mib": peak, "note": ""})
    return rows


def alone(case: Case) -> tuple[float, int]:
    """Seconds to the end of the case's first step in a process of its own, and its peak in MiB."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--alone"]
    environment = os.environ | ({"PYTORCH_ALONE": "1"} if case.framework == "torch" else {})
    done = subprocess.run(
        [*command, json.dumps(dataclasses.asdict(case))],
        cwd=measure.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def run_alone(case: Case) -> tuple[float, int]:
    """As `alone`, in this process."""
    if case.framework == "torch":
        import torch  # noqa: F401
    jnp.zeros(()).block_until_ready()
    start = time.perf_counter()
    call = make_call(case, 1)
    call()
    seconds = time.perf_counter() - start
    for _ in range(STEPS_ALONE - 1):
        freed_memory.after_step()
        call()
    status = Path("/proc/self/status").read_text()  # ru_maxrss may be that of the parent
    return round(seconds, 1), int(status.split("VmHWM:")[1].split()[0]) >> 10


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("throughput", __doc__)
    parser.add_argument("--rounds", type=int, help="default: 7")
    fields = {
        field.name: int if field.name == "batch_size" else str for field in dataclasses.fields(Case)
    }
    for field, kind in fields.items():
        flag = f"--{field.replace('_', '-')}"
        parser.add_argument(flag, type=kind, nargs="+", help="only these (default: all)")
    parser.add_argument("--alone", type=json.loads, metavar="CASE", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.alone:
        print(json.dumps(run_alone(Case(**args.alone))))
        return {}
    keep_compiled(default_cache_dir())
    rounds = args.rounds or (2 if args.quick else 7)
    on_cpu = jax.default_backend() == "cpu"
    groups: dict[Any, list[Case]] = {}
    chosen = [
        case
        for case in cases(args.quick)
        if all(
            getattr(args, field) is None or getattr(case, field) in getattr(args, field)
            for field in fields
        )
    ]
    for case in chosen:
        # In turns: on a CPU all ways to train a network, on a GPU those of a dtype and batch size.
        key = (case.model, case.task) if on_cpu else (case.dtype, case.batch_size)
        groups.setdefault(key, []).append(case)
    if not chosen:
        parser.error("no case has all of these values: without them all cases are measured")
    rows: list[dict] = []
    for group in groups.values():
        num_steps = 1 if on_cpu else max(1, 16384 // group[0].batch_size)
        rows += measure_group(group, num_steps, rounds, args.quick)
        measure.write("throughput", rows, args.output, rounds=rounds)  # if it is cut off
        jax.clear_caches()
    dtypes = sorted({row["dtype"] for row in rows})
    rates = {dtype: round(matrix_rate(dtype, args.quick) / 1e12, 3) for dtype in dtypes}
    return measure.report(
        "throughput", rows, args.output, matrix_rate_tflop_per_second=rates, rounds=rounds
    )


if __name__ == "__main__":
    main()
