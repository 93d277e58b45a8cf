"""Corrupt datasets and run folders: refused in one line, or read as they were.

Where a checksum exists (a .npz file, the cache, tfds's records) corrupt data are never read as
good. The other kinds mend the checksum, or have none: there only crashes count.
"""

import hashlib
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.data.load import Dataset, load_dataset
from flax_resnet.data.sources.cifar10_archive import read_cifar10_archive
from flax_resnet.data.sources.npz import read_npz
from flax_resnet.process.errors import UserError
from tests.dataset_files import write_archive, write_folder, write_npz
from tests.logs import collected
from tests.stress.arguments import arguments
from tests.stress.mutations import Random, mutate
from tests.stress.tally import Tally

NAMES = np.array(["cat", "dog", "élan"])


def same(one: Dataset, other: Dataset) -> bool:
    """Whether two datasets are the same to a run."""
    arrays = ("train_images", "train_labels", "test_images", "test_labels")
    return one.class_names == other.class_names and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


class Npz:
    """A .npz file, plain or compressed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "set.npz"
        fields = write_npz(self._path, class_names=NAMES)
        self._original = read_npz(self._path, None)
        self._contents = [self._path.read_bytes()]
        np.savez_compressed(self._path, **fields)
        self._contents.append(self._path.read_bytes())

    def __call__(self, random: Random) -> None:
        self._path.write_bytes(mutate(self._contents[int(random.integers(2))], random))
        assert same(read_npz(self._path, None), self._original), "damage was read"


class NpzMended:
    """A .npz file whose arrays are damaged and the zip around them is not."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "mended.npz"
        self._fields = write_npz(self._path, class_names=NAMES)

    def __call__(self, random: Random) -> None:
        chosen = list(self._fields)[int(random.integers(len(self._fields)))]
        method = zipfile.ZIP_DEFLATED if random.random() < 0.5 else zipfile.ZIP_STORED
        with zipfile.ZipFile(self._path, "w", method) as archive:
            for name, array in self._fields.items():
                stream = io.BytesIO()
                np.save(stream, array)
                content = stream.getvalue()
                archive.writestr(
                    f"{name}.npy", mutate(content, random) if name == chosen else content
                )
        read_npz(self._path, 8 if random.random() < 0.3 else None)


class Cache:
    """An entry of the cache of decoded images; it must be noticed, and built again."""

    def __init__(self, folder: Path) -> None:
        self._source, self._cache = folder / "source.npz", folder / "cache"
        write_npz(self._source, class_names=NAMES)
        self._original = load_dataset(str(self._source), cache_dir=self._cache)
        (self._entry,) = (self._cache / "datasets").iterdir()
        self._contents = {path.name: path.read_bytes() for path in self._entry.iterdir()}

    def __call__(self, random: Random) -> None:
        for name, content in self._contents.items():
            (self._entry / name).write_bytes(content)
        chosen = sorted(self._contents)[int(random.integers(len(self._contents)))]
        if random.random() < 0.05:
            (self._entry / chosen).unlink()
        else:
            (self._entry / chosen).write_bytes(mutate(self._contents[chosen], random))
        with collected() as lines:
            loaded = load_dataset(str(self._source), cache_dir=self._cache)
        assert same(loaded, self._original), f"damage of {chosen} was read"
        assert loaded.digest == self._original.digest and loaded.source == self._original.source
        assert chosen == "meta.json" or any("corrupt" in line for line in lines), chosen


class Archive:
    """CIFAR-10's archive, its checksum as published or mended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cifar-10-binary.tar.gz"
        self._digest = write_archive(self._path)
        self._content = self._path.read_bytes()

    def __call__(self, random: Random) -> None:
        content = mutate(self._content, random)
        self._path.write_bytes(content)
        mended = random.random() < 0.8
        digest = hashlib.sha256(content).hexdigest() if mended else self._digest
        read_cifar10_archive(self._path, sha256=digest, images_per_file=2)
        assert mended, "damage was read"


class Folder:
    """A folder of images, one of them damaged."""

    def __init__(self, folder: Path) -> None:
        self._folder = write_folder(folder / "images")
        self._path = sorted(self._folder.rglob("*.png"))[0]
        self._content = self._path.read_bytes()
        self._cache = folder / "folder_cache"

    def __call__(self, random: Random) -> None:
        self._path.write_bytes(mutate(self._content, random))
        size = 8 if random.random() < 0.5 else None
        dataset = load_dataset(str(self._folder), image_size=size, cache_dir=self._cache)
        assert dataset.train_images.shape[0] == 6


class Figures:
    """metrics.jsonl of a run, and a log to compare with, on their way into the plots."""

    def __init__(self, folder: Path) -> None:
        self._metrics, self._log = folder / "metrics.jsonl", folder / "log.csv"
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        others = {"learning_rate": 1e-3, "seconds": 2.5, "images_per_second": 80.0}
        rows = [
            {"epoch": epoch, "step": 7 * epoch} | dict.fromkeys(names, 1 / (epoch + 1)) | others
            for epoch in range(1, 4)
        ]
        self._lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self._csv = (f"epoch,{','.join(names)}\n" + "1,1.5,40,1.4,45\n2,1,60,1,60\n").encode()

    def __call__(self, random: Random) -> None:
        from flax_resnet.plots import curves as plots
        from flax_resnet.runs.metrics_log import describe_row, read_metrics
        from flax_resnet.runs.reference_log import read_reference

        self._metrics.write_bytes(self._lines)
        self._log.write_bytes(self._csv)
        chosen = self._metrics if random.random() < 0.6 else self._log
        chosen.write_bytes(mutate(chosen.read_bytes(), random))
        rows, reference = read_metrics(self._metrics), read_reference(str(self._log))
        for row in rows:
            describe_row(row)
        if rows:
            figure = plots.run_figure(plots.LOSS, rows, "title", 50, reference)
            figure.savefig(io.BytesIO(), format="png", dpi=40)


class Run:
    """config.json and dataset.json of a run that has no checkpoint: never more than refused."""

    def __init__(self, folder: Path) -> None:
        from flax_resnet.config.load import default_config, to_json

        self._folder = folder / "run"
        self._folder.mkdir()
        info = {
            "class_names": ["cat", "dog"], "image_shape": [32, 32, 3], "train_images": 10,
            "test_images": 4, "val_images": 0, "digest": "0" * 64, "source": "a folder",
        }  # fmt: skip
        config = default_config()
        with config.unlocked():
            config.design.stage_channels = (2, 2, 2, 2)
        self._contents = {
            "config.json": to_json(config).encode(),
            "dataset.json": json.dumps(info, indent=2).encode(),
        }

    def __call__(self, random: Random) -> None:
        from flax_resnet.inference.model import load_trained

        self.write()
        chosen = sorted(self._contents)[int(random.integers(2))]
        (self._folder / chosen).write_bytes(mutate(self._contents[chosen], random))
        load_trained(self._folder)

    def write(self) -> None:
        """Writes the files as they should be."""
        for name, content in self._contents.items():
            (self._folder / name).write_bytes(content)


class Tfds:
    """A set that tfds has prepared, with one of its files damaged, emptied or missing."""

    def __init__(self, folder: Path) -> None:
        from flax_resnet.data.sources.tfds_download import import_tensorflow, import_tfds

        import_tensorflow()
        tfds: Any = import_tfds()
        tfds.disable_progress_bar()
        self._folder, self._cache = folder / "tfds", folder / "tfds_cache"
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        }
        examples = [
            (i, {"image": np.full((8, 8, 3), i, np.uint8), "label": i % 2}) for i in range(6)
        ]
        tfds.dataset_builders.store_as_tfds_dataset(
            name="small",
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={"train": examples, "test": examples},
            data_dir=str(self._folder),
            disable_shuffling=True,
        )
        self._files = {
            path: path.read_bytes() for path in self._folder.rglob("*") if path.is_file()
        }
        self._original = self._load()

    def _load(self) -> Dataset:
        shutil.rmtree(self._cache, ignore_errors=True)
        return load_dataset("small:1.0.0", data_dir=str(self._folder), cache_dir=self._cache)

    def __call__(self, random: Random) -> None:
        for path, content in self._files.items():
            path.write_bytes(content)
        chosen = sorted(self._files)[int(random.integers(len(self._files)))]
        if random.random() < 0.1:
            chosen.unlink()
        else:
            chosen.write_bytes(mutate(self._files[chosen], random))
        loaded = self._load()
        assert ".tfrecord" not in chosen.name or same(loaded, self._original), "damage was read"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(8 << 30)


def _unreadable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


def _links(path: Path) -> None:
    """A chain of links to a folder that holds itself."""
    path.mkdir()
    (path / "self").symlink_to(path, target_is_directory=True)


_ODDITIES: tuple[Callable[[Path], None], ...] = (
    _pipe, _loop, _device, _socket, _sparse, _unreadable, _links, Path.mkdir,
)  # fmt: skip


class OddFiles:
    """What is no ordinary file, in the place of a dataset's file or of a run's: never waited for,
    and never read without end."""

    SECONDS = 20
    MIB = 1500  # beyond what the process took before

    def __init__(self, folder: Path) -> None:
        self._images = write_folder(folder / "images")
        self._npz = folder / "set.npz"
        write_npz(self._npz)
        self._run = Run(folder)
        self._cache = folder / "cache"
        run_files = [folder / "run" / name for name in ("config.json", "dataset.json")]
        self._run.write()
        self._kept = folder / "kept.npz"  # never replaced, so that its entry's name stays
        write_npz(self._kept)
        load_dataset(str(self._kept), cache_dir=self._cache)
        (self._entry,) = (self._cache / "datasets").iterdir()
        images = sorted(self._images.rglob("*.png"))
        self._targets = [*images, self._npz, *run_files, *sorted(self._entry.iterdir())]
        self._contents = {path: path.read_bytes() for path in self._targets}

    def __call__(self, random: Random) -> None:
        target = self._targets[int(random.integers(len(self._targets)))]
        target.unlink()
        _ODDITIES[int(random.integers(len(_ODDITIES)))](target)
        before = peak_memory_mib()
        previous = signal.signal(signal.SIGALRM, _give_up)
        signal.alarm(self.SECONDS)
        try:
            self._use(target)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
            self._restore(target)
        taken = peak_memory_mib() - before
        assert taken < self.MIB, f"{taken:.0f} MiB for {target.name}"

    def _use(self, target: Path) -> None:
        from flax_resnet.inference.model import load_trained

        if target.name in ("config.json", "dataset.json"):
            load_trained(target.parent)
        else:
            sources = {".png": self._images, ".npz": self._npz}
            source = sources.get(target.suffix, self._kept)
            load_dataset(str(source), cache_dir=self._cache)

    def _restore(self, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(self._contents[target])


def _give_up(*_: object) -> None:
    raise AssertionError("it waits")


def peak_memory_mib() -> float:
    """The most memory that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Kind of case -> (its share of the cases, what makes and checks one).
KINDS: dict[str, tuple[float, Callable[[Path], Callable[[Random], None]]]] = {
    "npz": (0.25, Npz),
    "npz, checksums mended": (0.20, NpzMended),
    "cache": (0.20, Cache),
    "archive": (0.10, Archive),
    "folder": (0.08, Folder),
    "figures": (0.05, Figures),
    "run": (0.04, Run),
    "odd files": (0.05, OddFiles),
    "tfds": (0.03, Tfds),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases; returns 1 if one failed."""
    parser = arguments("data", __doc__, count=2000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all")
    args = parser.parse_args(argv)
    tally = Tally(args)
    for kind in args.kinds or KINDS:
        share, make = KINDS[kind]
        if kind == "tfds" and importlib.util.find_spec("tensorflow") is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = make(Path(folder))
            for number in range(max(1, round(args.count * share))):
                if not tally.in_time:
                    break
                start, outcome, failure = time.perf_counter(), "read", None
                try:
                    run(np.random.default_rng((args.seed, number)))
                except UserError as error:
                    outcome = "refused"
                    if len(str(error).splitlines()) != 1 and kind != "tfds":
                        failure = f"not one line: {error}"
                except Exception as error:  # whatever it is, it is the finding
                    failure = f"{type(error).__name__}: {error}"
                if failure:
                    failure = f"{kind}, seed {args.seed}, case {number}: {failure}"
                tally.add(kind, outcome, time.perf_counter() - start, failure)
    return tally.finish("data")


if __name__ == "__main__":
    sys.exit(main())
