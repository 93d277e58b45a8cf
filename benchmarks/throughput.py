"""Training images a second of this program and of PyTorch, in turns on the same machine.

Images and weights lie on the device: input_pipeline.py measures the feeding, end_to_end.py both.
The PyTorch network is that of the tests, which has the same parameters and gives the same logits.
FLOPs are two a multiply-add, forward and backward: six times those of `summary`.
"""

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from flax_resnet.config.build import build_model, build_optimizer, build_train_step
from flax_resnet.config.conv_choice import CONVOLVE
from flax_resnet.config.load import load_config
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.models.resnet import Design
from flax_resnet.models.summary import summarize
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.paths import default_cache_dir

IMAGE_SHAPE = (32, 32, 3)
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to train a network.

    Attributes:
      framework: 'flax' or 'torch'.
      variant: conv of the config, or PyTorch's memory format and mode.
      dtype: 'float32', 'tf32' (float32 whose products may be rounded to TF32) or 'bfloat16'.
      model: a name of configs/, or 'tiny'.
      batch_size: images a step.
    """

    framework: str
    variant: str
    dtype: str
    model: str
    batch_size: int


def cases(quick: bool) -> list[Case]:
    """What is measured where there is a GPU, and where there is none."""
    if quick:
        return [
            Case("flax", "winograd", "float32", "tiny", 8),
            Case("torch", "channels_last", "float32", "tiny", 8),
        ]
    if jax.default_backend() == "cpu":
        return [
            Case(framework, variant, dtype, model, 512 if model == "airbench94" else 128)
            for model in ("revised", "resnet18", "resnet20", "resnet56", "airbench94")
            for framework, variant, dtype in (
                ("flax", "native", "float32"),
                ("flax", "winograd", "float32"),
                ("flax", "onednn", "float32"),
                ("flax", "onednn+winograd", "float32"),
                ("flax", "native", "bfloat16"),
                ("flax", "onednn", "bfloat16"),
                ("torch", "eager", "float32"),
                ("torch", "channels_last", "float32"),
                ("torch", "channels_last compile", "float32"),
                ("torch", "channels_last", "bfloat16"),
            )
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


def config_file(model: str) -> Path:
    """The file of a name of configs/, or of the tiny network of --quick."""
    folder = "benchmarks" if model == "tiny" else "configs"
    return measure.ROOT / folder / f"{model}.py"


def precision(dtype: str) -> Any:
    """What jax.default_matmul_precision takes, which matters on a GPU alone."""
    if jax.default_backend() == "cpu":
        return None
    return {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": None}[dtype]


def random_chunk(num_steps: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [steps, batch, 32, 32, 3] and int32 labels [steps, batch]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_steps, batch_size, *IMAGE_SHAPE), dtype=np.uint8)
    return images, rng.integers(0, NUM_CLASSES, (num_steps, batch_size), dtype=np.int32)


def flax_call(case: Case, num_steps: int) -> Callable[[], None]:
    """Compiles; each call takes `num_steps` steps as training does and waits for them."""
    config = case_config(case)
    parallel = DataParallel(devices=jax.devices()[:1])
    chunk = parallel.place(*random_chunk(num_steps, case.batch_size))
    steps = parallel.compile_train(
        build_train_step(config, NUM_CLASSES, num_steps, CONVOLVE[case.variant])
    )
    model, optimizer = build_model(config, NUM_CLASSES), build_optimizer(config)
    state = parallel.replicate(init_state(model, optimizer, IMAGE_SHAPE, config.seed))
    sums = parallel.replicate(MetricSums.zeros())
    with jax.default_matmul_precision(precision(case.dtype)):
        steps.compile_for(state, sums, chunk)

    def call() -> None:
        nonlocal state, sums
        state, sums = steps(state, sums, chunk)
        jax.block_until_ready((state, sums))

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
    images, labels = random_chunk(num_steps, case.batch_size)
    batches = [
        (torch.tensor(i, device=device), torch.tensor(y, device=device).long())
        for i, y in zip(images, labels, strict=True)
    ]

    def forward(images: Any, labels: Any) -> Any:
        x = ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            return torch.nn.functional.cross_entropy(network(x), labels)

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
        macs = summarize(build_model(config, NUM_CLASSES), IMAGE_SHAPE).multiply_adds
        images = num_steps * case.batch_size
        per_second = images / statistics.median(seconds[case])
        flops = per_second * 6 * macs
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
        rows.append(row | {"note": ""})
    return rows


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("throughput", __doc__)
    parser.add_argument("--rounds", type=int, help="default: 7")
    for field, kind in (("model", str), ("variant", str), ("dtype", str), ("batch_size", int)):
        flag = f"--{field.replace('_', '-')}"
        parser.add_argument(flag, type=kind, nargs="+", help="only these (default: all)")
    args = parser.parse_args(argv)
    keep_compiled(default_cache_dir())
    rounds = args.rounds or (2 if args.quick else 7)
    on_cpu = jax.default_backend() == "cpu"
    groups: dict[Any, list[Case]] = {}
    chosen = [
        case
        for case in cases(args.quick)
        if all(
            getattr(args, field) is None or getattr(case, field) in getattr(args, field)
            for field in ("model", "variant", "dtype", "batch_size")
        )
    ]
    for case in chosen:
        # In turns: on a CPU all ways to train a network, on a GPU those of a dtype and batch size.
        key = case.model if on_cpu else (case.dtype, case.batch_size)
        groups.setdefault(key, []).append(case)
    rows = []
    for group in groups.values():
        num_steps = 1 if on_cpu else max(1, 16384 // group[0].batch_size)
        rows += measure_group(group, num_steps, rounds, args.quick)
        jax.clear_caches()
    dtypes = sorted({row["dtype"] for row in rows})
    rates = {dtype: round(matrix_rate(dtype, args.quick) / 1e12, 3) for dtype in dtypes}
    return measure.report(
        "throughput", rows, args.output, matrix_rate_tflop_per_second=rates, rounds=rounds
    )


if __name__ == "__main__":
    main()
