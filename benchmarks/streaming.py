"""Images per second of a streamed folder, the input alone, beside tf.data, PyTorch and grain.

    python -m benchmarks.streaming --images FOLDER

The folder is filled with 20,000 JPEGs of ImageNet's sizes (jpegs.py) where it is missing.

Everyone reads the same JPEGs, crops a part of random area and aspect, resizes it to 224 pixels,
mirrors half of them and makes batches of 128 uint8 images, with as many threads or processes as
there are cores. grain runs this program's own decoding: it shows what the loader itself costs.

Images per second of all cores depend on what else runs; images per second of processor time, in
which the processes of a loader are counted too, much less.
"""

import dataclasses
import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import measure
from benchmarks.jpegs import make_images
from flax_resnet.data.batches import TrainBatches, prefetch
from flax_resnet.data.image_files import decode_image
from flax_resnet.data.load import load_dataset
from flax_resnet.data.resize import decode_box, resize_box
from flax_resnet.data.streaming import StreamedImages
from flax_resnet.data.transforms import build_transforms
from flax_resnet.data.transforms.resized_crop import RandomResizedCrop
from flax_resnet.process.errors import UserError
from flax_resnet.process.machine import usable_cores

SIDE, BATCH = 224, 128
WARM_UP = 6  # batches
Epoch = Callable[[], Iterator[Any]]  # batches without end


def streamed(folder: Path, native: bool) -> StreamedImages:
    """The training images of the folder."""
    dataset = load_dataset(str(folder), image_size=SIDE, loading="stream", native=native)
    assert isinstance(dataset.train_images, StreamedImages)
    return dataset.train_images


def ours(folder: Path, native: bool) -> Epoch:
    """This program's batches, as in training."""
    images = streamed(folder, native)
    batches = TrainBatches(
        images,
        np.zeros(len(images), np.int32),
        batch_size=BATCH,
        seed=0,
        transforms=build_transforms(crop_padding=0, flip=True, resized_crop=0.08, native=native),
        drop_last=True,
    )
    return lambda: prefetch(
        lambda: (c.images[0] for e in itertools.count() for c in batches.epoch(e))
    )


class _Decode:
    """One image by this program's decoder, for grain; sent to its processes."""

    def __init__(self, images: StreamedImages, native: bool) -> None:
        self.images, self.crop = images, RandomResizedCrop(0.08, native)
        self.draws = self.crop.draw(0, 0, images.index)

    def __call__(self, number: int) -> np.ndarray:
        find_box = functools.partial(self.crop.box, drawn=self.draws[number])
        data, name = self.images.encoded.read(number), self.images.encoded.name(number)
        image = decode_box(data, name, find_box, (SIDE, SIDE), self.crop.native)
        return image[:, ::-1] if number % 2 else image


def grain_loader(folder: Path, native: bool, processes: bool) -> Epoch:
    """The same decoding in grain's threads or processes."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain's processes ask for flags of the command line

    images = streamed(folder, native)
    source = grain.MapDataset.range(len(images)).seed(0).shuffle().repeat()
    decoded = source.map(_Decode(images, native)).batch(BATCH)

    def epoch() -> Iterator[Any]:
        if not processes:
            options = grain.ReadOptions(num_threads=usable_cores(), prefetch_buffer_size=4)
            return iter(decoded.to_iter_dataset(options))
        one = decoded.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        return iter(one.mp_prefetch(grain.MultiprocessingOptions(num_workers=usable_cores())))

    return epoch


def tf_data(folder: Path) -> Epoch:
    """As Flax's ImageNet example, which decodes the crop alone; without antialiasing."""
    from flax_resnet.data.sources.tfds_download import import_tensorflow

    tf = import_tensorflow()
    files = sorted(str(path) for path in (folder / "train").glob("*/*.jpg"))

    def decode(path: Any) -> Any:
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros((1, 0, 4), tf.float32),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.resize(tf.io.decode_and_crop_jpeg(data, window, channels=3), (SIDE, SIDE))
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    def epoch() -> Iterator[Any]:
        dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
        dataset = dataset.map(decode, num_parallel_calls=usable_cores()).batch(BATCH).prefetch(2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = usable_cores()
        return dataset.with_options(options).as_numpy_iterator()

    return epoch


def torch_loader(folder: Path) -> Epoch:
    """PyTorch's DataLoader with torchvision's transforms of Pillow images, a worker a core."""
    import torch

    # A torchvision for CUDA cannot register its operators beside a PyTorch for the CPU; the
    # transforms of Pillow images need none.
    with mock.patch("torch.library.register_fake", lambda name: lambda function: function):
        from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*steps, transforms.PILToTensor()])
    dataset = datasets.ImageFolder(str(folder / "train"), transform)
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=usable_cores())
    return lambda: (images for images, _ in loader)


@dataclasses.dataclass(frozen=True)
class Timing:
    """What some batches took, in seconds: by the clock, and of all processors."""

    clock: float
    processor: float


def processor_seconds() -> float:
    """Of this process and its children, on Linux."""
    seconds = time.process_time()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path("/proc", child, "stat").read_text().rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # user, system
    return seconds


def take(epoch: Epoch, batches: int) -> Timing:
    """Times `batches` after some others, in which threads and processes start and buffers fill."""
    iterator = epoch()
    for _ in range(WARM_UP):
        next(iterator)
    processor, start = processor_seconds(), time.perf_counter()
    for batch in itertools.islice(iterator, batches):
        assert np.shape(batch)[0] == BATCH
    timing = Timing(time.perf_counter() - start, processor_seconds() - processor)
    getattr(iterator, "close", lambda: None)()
    return timing


def reduced_differences(folder: Path, side: int, count: int = 200) -> dict[str, float]:
    """How far crops of JPEGs decoded at reduced size are from those of whole ones."""
    images, crop, differences = streamed(folder, False), RandomResizedCrop(0.08), []
    draws = crop.draw(0, 0, images.index)
    for number in range(0, len(images), max(1, len(images) // count)):
        find_box = functools.partial(crop.box, drawn=draws[number])
        data, size = images.encoded.read(number), (side, side)
        whole = decode_image(data, "")
        exact = resize_box(whole, find_box(*whole.shape[:2]), size).astype(int)
        differences.append(np.abs(decode_box(data, "", find_box, size) - exact))
    reduced = [d for d in differences if d.any()]
    return {
        "share_reduced": len(reduced) / len(differences),
        "largest": float(max(d.max() for d in reduced)) if reduced else 0.0,
        "mean": float(np.mean([d.mean() for d in reduced])) if reduced else 0.0,
    }


def make_ways(folder: Path, quick: bool) -> dict[str, Epoch]:
    """Every loader that is installed."""
    makers: dict[str, Callable[[], Epoch]] = {
        "flax_resnet, native": lambda: ours(folder, True),
        "flax_resnet, Pillow": lambda: ours(folder, False),
        "tf.data": lambda: tf_data(folder),
        "PyTorch DataLoader": lambda: torch_loader(folder),
        "grain, threads, native": lambda: grain_loader(folder, True, False),
        "grain, processes, native": lambda: grain_loader(folder, True, True),
    }
    ways: dict[str, Epoch] = {}
    for name in ["flax_resnet, Pillow"] if quick else makers:
        try:
            ways[name] = makers[name]()
        except (ImportError, UserError) as error:
            print(f"{name} is left out: {error}")
    return ways


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    parser = measure.arguments("streaming", __doc__)
    images = parser.add_argument("--images", type=Path, metavar="FOLDER", help="made if missing")
    images.default = measure.ROOT / "build" / "imagenet"
    parser.add_argument("--source", default="cifar10", help="what to make them of")
    parser.add_argument("--count", type=int, default=20_000, help="how many to make")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--batches", type=int, default=12, help="a round (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.batches, args.count = 1, 1, BATCH
        args.source, args.images = "digits", args.output / "images"
    if not (args.images / "train").is_dir():
        make_images(load_dataset(args.source), args.images, args.count, max(1, args.count // 40))
    ways = make_ways(args.images, args.quick)
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for number in range(-1, args.rounds):
        for name, epoch in ways.items():
            timing = take(epoch, args.batches)
            if number >= 0:
                timings[name].append(timing)
    first = next(iter(timings.values()))
    taken = args.batches * BATCH
    rows = [
        {
            "loader": name,
            "images_per_second": taken / statistics.median(t.clock for t in took),
            "first_over_it": measure.median_ratio(
                [t.clock for t in took], [t.clock for t in first]
            ),
            "images_per_processor_second": taken / statistics.median(t.processor for t in took),
        }
        for name, took in timings.items()
    ]
    return measure.report(
        "streaming",
        rows,
        args.output,
        rounds=args.rounds,
        reduced_to_64=reduced_differences(args.images, 64),
        reduced_to_224=reduced_differences(args.images, SIDE),
    )


if __name__ == "__main__":
    main()
