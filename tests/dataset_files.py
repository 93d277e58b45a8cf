"""Small datasets of the tests' own, and the two ways a load can end."""

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.dataset import Dataset
from flax_resnet.data.load import load_dataset
from flax_resnet.process.errors import UserError


def write_npz(path, **changes):
    """A small .npz dataset of 10 + 4 images; a change of None leaves the field out."""
    random = np.random.RandomState(0)
    fields = {
        "x_train": random.randint(0, 256, (10, 4, 4, 3)).astype(np.uint8),
        "y_train": np.arange(10) % 3,
        "x_test": random.randint(0, 256, (4, 4, 4, 3)).astype(np.uint8),
        "y_test": np.array([0, 1, 2, 0]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in fields.items() if array is not None})
    return fields


def write_archive(path: Path, extra=(), drop=()):
    """A small archive of CIFAR-10's layout, its pixels counted; returns its SHA-256."""
    files = {"batches.meta.txt": b"airplane\nship\n\n"}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        records = np.zeros((2, 3073), np.uint8)
        records[:, 0] = [0, 1]
        records[:, 1:1025] = number  # red plane
        records[:, 1025:2049] = 100  # green plane
        records[:, 2049:] = np.arange(1024) % 32  # blue plane: the column
        files[f"{name}.bin"] = records.tobytes()
    files.update(extra)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            if name not in drop:
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return sha256(path.read_bytes()).hexdigest()


def write_folder(base: Path, colors=("red", "blue"), size=(4, 4), per_class=3) -> Path:
    for split in ("train", "test"):
        for color in colors:
            (base / split / color).mkdir(parents=True)
            for index in range(per_class):
                Image.new("RGB", size, color).save(base / split / color / f"{index}.png")
    return base


def load(name, tmp_path, **kwargs) -> Dataset:
    return load_dataset(str(name), cache_dir=tmp_path / "cache", **kwargs)


def refused(name, tmp_path, **kwargs) -> UserError:
    """The error of a load that must fail; all but the list of alternatives is one line."""
    with pytest.raises(UserError) as caught:
        load(name, tmp_path, **kwargs)
    error = caught.value
    assert len(str(error).splitlines()) == 1 or error.code == "unavailable"
    return error


def limit_memory(monkeypatch, num_bytes: int) -> None:
    """Lets a dataset take so many bytes, half of what is said to be available."""
    monkeypatch.setattr("flax_resnet.data.image_arrays.available_memory", lambda: 2 * num_bytes)


def write_photos(base: Path, num: int = 6) -> Path:
    """A folder of `num` training and 4 test JPEGs of different sizes, in two classes."""
    random = np.random.RandomState(1)
    for split, count in (("train", num), ("test", 4)):
        for i in range(count):
            (base / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.randint(0, 256, (5, 6, 3), np.uint8))
            size = (60 + 7 * i, 90 - 5 * (i % 9))
            path = base / split / "ab"[i % 2] / f"{i:02}.jpg"
            coarse.resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    return base
