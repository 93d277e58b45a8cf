"""Augmented images per second, and the cost of feeding a training step from the pipeline.

The paper's augmentation (padding 4, random crop, flip) on 32 x 32 images: this program's, which
takes a batch at once, against one image at a time, as in torchvision's transforms, with numpy and
with PIL. Every other transform alone, and what recipes put together. Then the training step of the
revised network fed by the pipeline over the same step on images already on the device.
"""

import concurrent.futures
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps

from benchmarks import measure
from benchmarks.throughput import NUM_CLASSES, Case, case_config, random_chunk
from flax_resnet.config.build import build_model, build_optimizer, build_train_step
from flax_resnet.config.conv_choice import convolve
from flax_resnet.data.batches import TrainBatches, prefetch
from flax_resnet.data.transforms import build_transforms
from flax_resnet.engine.dispatch import InFlight
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.process.compile_cache import keep_compiled
from flax_resnet.process.paths import default_cache_dir

PADDING = 4
PAPERS = {"crop_padding": PADDING, "flip": True}
NONE = {"crop_padding": 0, "flip": False}
JITTER, TRIVIAL = {"color_jitter": (0.2, 0.2, 0.2)}, {"trivial_augment": True}
TRANSFORMS: dict[str, dict[str, Any]] = {
    "crop": NONE | {"crop_padding": PADDING},
    "flip": NONE | {"flip": True},
    "cutout": NONE | {"cutout": 8},
    "color jitter": NONE | JITTER,
    "TrivialAugment": NONE | TRIVIAL,
    "crop, flip": PAPERS,
    "reflecting crop, alternating flip": PAPERS | {"pad_mode": "reflect", "alternating": True},
    "crop, flip, cutout": PAPERS | {"cutout": 8},
    "crop, flip, color jitter": PAPERS | JITTER,
    "crop, flip, TrivialAugment, cutout": PAPERS | TRIVIAL | {"cutout": 16},
}
Images = np.ndarray  # uint8 [n, 32, 32, 3]


def make_batches(
    images: Images, labels: np.ndarray, batch_size: int = 128, **options: Any
) -> TrainBatches:
    """An augmentation of these images, the paper's unless build_transforms gets other options."""
    return TrainBatches(
        images,
        labels,
        batch_size=batch_size,
        seed=0,
        transforms=build_transforms(**options or PAPERS),
        drop_last=True,
    )


def batched(batches: TrainBatches, threads: int) -> Callable[[], Any]:
    """This program's: one epoch, its batches shared by `threads` threads."""
    plan = batches.plan(0)

    def share(thread: int) -> None:
        for step in range(thread, batches.steps_per_epoch, threads):
            batches.chunk(plan, step, step + 1)

    if threads == 1:
        return lambda: share(0)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: list(pool.map(share, range(threads)))


def one_by_one_numpy(images: Images) -> Callable[[], None]:
    """Pad, crop and flip an image at a time in numpy."""
    rng = np.random.default_rng(0)

    def augment(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        top, left = rng.integers(0, 2 * PADDING + 1, 2)
        cropped = padded[top : top + image.shape[0], left : left + image.shape[1]]
        return cropped[:, ::-1] if rng.random() < 0.5 else cropped

    def call() -> None:
        for start in range(0, len(images), 128):
            np.stack([augment(image) for image in images[start : start + 128]])

    return call


def one_by_one_pil(images: Images) -> Callable[[], None]:
    """The same with PIL, what torchvision's transforms call for a CIFAR-10 image."""
    rng = np.random.default_rng(0)

    def augment(array: np.ndarray) -> np.ndarray:
        image = ImageOps.expand(Image.fromarray(array), PADDING)
        top, left = (int(v) for v in rng.integers(0, 2 * PADDING + 1, 2))
        image = image.crop((left, top, left + array.shape[1], top + array.shape[0]))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)

    def call() -> None:
        for start in range(0, len(images), 128):
            np.stack([augment(image) for image in images[start : start + 128]])

    return call


def augmentation_rows(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Images per second of each method."""
    images = random_chunk(1, 256 if quick else 50_000)[0][0]
    few = images[: 256 if quick else 2560]
    cores = len(os.sched_getaffinity(0))
    threads = sorted({1, 2, cores} if cores > 1 else {1})
    labels = np.zeros(len(images), np.int32)
    made = {name: make_batches(images, labels, **options) for name, options in TRANSFORMS.items()}
    ways: dict[tuple[str, int], Callable[[], Any]] = {
        (name, n): batched(batches, n) for name, batches in made.items() for n in threads
    }
    ways |= {
        ("crop, flip: image by image, numpy", 1): one_by_one_numpy(few),
        ("crop, flip: image by image, PIL", 1): one_by_one_pil(few),
    }
    seconds = measure.interleave(ways, rounds)
    rows = []
    for (name, num_threads), times in seconds.items():
        done = len(few) if "image by image" in name else len(images) // 128 * 128
        per_second = done / statistics.median(times)
        rows.append({"augmentation": name, "threads": num_threads, "images_per_second": per_second})
    return rows


def fed_over_resident(quick: bool, rounds: int) -> dict[str, Any]:
    """Step time fed by the pipeline, as in training, over that on images on the device."""
    on_cpu = jax.default_backend() == "cpu"
    case = Case("flax", "winograd" if on_cpu else "native", "float32", "revised", 128)
    if quick:
        case = Case("flax", "native", "float32", "tiny", 8)
    config = case_config(case)
    parallel = DataParallel(devices=jax.devices()[:1])
    images, labels = random_chunk(1, 16 * case.batch_size if quick or on_cpu else 50_000)
    batches = make_batches(images[0], labels[0], case.batch_size)
    per_call = 2 if quick else 4 if on_cpu else 200
    steps = parallel.compile_train(
        build_train_step(config, NUM_CLASSES, batches.steps_per_epoch, convolve(case.variant))
    )
    model, optimizer = build_model(config, NUM_CLASSES), build_optimizer(config)
    shape = images.shape[2:]
    state = parallel.replicate(init_state(model, optimizer, shape, config.seed))
    sums = parallel.replicate(MetricSums.zeros())

    def endless() -> Iterator[Any]:
        epoch = 0
        while True:
            for chunk in batches.epoch(epoch):
                yield parallel.place(chunk.images, chunk.labels)
            epoch += 1

    fed = prefetch(endless)
    resident = next(fed)

    def train(chunks: Iterator[Any]) -> None:
        nonlocal state, sums
        in_flight = InFlight(parallel.platform)
        for _ in range(per_call):
            state, sums = steps(state, sums, next(chunks))
            in_flight.add(sums)
        jax.block_until_ready((state, sums))

    def same() -> Iterator[Any]:
        while True:
            yield resident

    calls = {"fed": lambda: train(fed), "resident": lambda: train(same())}
    seconds = measure.interleave(calls, rounds)
    fed.close()
    return {
        "step_seconds_fed": statistics.median(seconds["fed"]) / per_call,
        "step_seconds_resident": statistics.median(seconds["resident"]) / per_call,
        "fed_over_resident": measure.median_ratio(seconds["fed"], seconds["resident"]),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("input_pipeline", __doc__)
    parser.add_argument("--rounds", type=int, help="default: 9")
    args = parser.parse_args(argv)
    keep_compiled(default_cache_dir())
    rounds = args.rounds or (2 if args.quick else 9)
    start = time.perf_counter()
    rows = augmentation_rows(args.quick, rounds)
    more = fed_over_resident(args.quick, rounds)
    seconds = round(time.perf_counter() - start, 1)
    return measure.report(
        "input_pipeline", rows, args.output, **more, rounds=rounds, seconds=seconds
    )


if __name__ == "__main__":
    main()
