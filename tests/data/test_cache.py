import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.load import load_dataset
from tests.logs import collected


def _write_npz(path, value=7, num=6):
    np.savez(
        path,
        x_train=np.full((num, 4, 4, 3), value, np.uint8),
        y_train=np.arange(num) % 2,
        x_test=np.full((2, 4, 4, 3), value + 1, np.uint8),
        y_test=np.array([0, 1]),
    )


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data.npz"
    _write_npz(path)
    return path


def _entries(cache):
    return sorted(path.name for path in (cache / "datasets").iterdir())


def _load(name, cache, **kwargs):
    with collected() as lines:
        dataset = load_dataset(str(name), cache_dir=cache, **kwargs)
    return dataset, lines


def test_second_load_comes_from_the_cache_and_is_the_same(npz, tmp_path, monkeypatch):
    first, _ = _load(npz, tmp_path / "cache")
    monkeypatch.setattr("flax_resnet.data.load.read_npz", pytest.fail)  # must not read again
    second, lines = _load(npz, tmp_path / "cache")
    assert lines == []
    np.testing.assert_array_equal(first.train_images, second.train_images)
    np.testing.assert_array_equal(first.test_labels, second.test_labels)
    assert second.test_labels.dtype == np.int32
    assert (first.class_names, first.digest, first.source) == (
        second.class_names,
        second.digest,
        second.source,
    )


def test_changed_source_is_never_served_stale(npz, tmp_path):
    cache = tmp_path / "cache"
    old, _ = _load(npz, cache)
    times = npz.stat()
    _write_npz(npz, value=9)  # the same size, and the time of modification set back
    os.utime(npz, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert npz.stat().st_size == times.st_size
    new, _ = _load(npz, cache)
    assert np.asarray(new.train_images).max() == 9 and new.digest != old.digest
    assert len(_entries(cache)) == 1  # the entry of the old file is gone


def test_replaced_source_is_never_served_stale(npz, tmp_path):
    cache = tmp_path / "cache"
    _load(npz, cache)
    times = npz.stat()
    other = tmp_path / "other.npz"
    _write_npz(other, value=9)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(npz)
    assert np.asarray(_load(npz, cache)[0].train_images).max() == 9


def test_changed_image_of_a_folder_is_noticed(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split / "one").mkdir(parents=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / "set" / split / "one" / "a.png")
    cache = tmp_path / "cache"
    red, _ = _load(tmp_path / "set", cache)
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "set" / "test" / "one" / "a.png")
    changed, _ = _load(tmp_path / "set", cache)
    assert np.asarray(changed.test_images)[0, 0, 0].tolist() == [0, 0, 255]
    assert changed.digest != red.digest
    Image.new("RGB", (4, 4), "green").save(tmp_path / "set" / "test" / "one" / "b.png")
    assert len(_load(tmp_path / "set", cache)[0].test_labels) == 2
    assert len(_entries(cache)) == 1


def test_sizes_and_sources_have_entries_of_their_own(npz, tmp_path):
    cache = tmp_path / "cache"
    _load(npz, cache)
    assert _load(npz, cache, image_size=8)[0].image_shape == (8, 8, 3)
    (tmp_path / "sub").mkdir()
    _write_npz(tmp_path / "sub" / "data.npz", value=30)
    assert np.asarray(_load(tmp_path / "sub" / "data.npz", cache)[0].train_images).max() == 30
    assert np.asarray(_load(npz, cache)[0].train_images).max() == 7
    assert len(_entries(cache)) == 3


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path):
    path.write_bytes(b"")


def _make_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [_flip_a_byte, _cut, _empty, _make_a_pipe, Path.unlink])
@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "meta.json"])
def test_corrupt_cache_is_rebuilt_with_one_line(npz, tmp_path, damage, name):
    cache = tmp_path / "cache"
    original, _ = _load(npz, cache)
    damage(cache / "datasets" / _entries(cache)[0] / name)
    rebuilt, lines = _load(npz, cache)
    assert len(lines) == 1 and "corrupt" in lines[0]
    np.testing.assert_array_equal(rebuilt.train_images, original.train_images)
    assert _load(npz, cache)[1] == []


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "meta.json"])
def test_any_flipped_bit_of_an_entry_is_noticed(npz, tmp_path, name):
    cache = tmp_path / "cache"
    original, _ = _load(npz, cache)
    path = cache / "datasets" / _entries(cache)[0] / name
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        loaded, lines = _load(npz, cache)
        assert len(lines) == 1 and "corrupt" in lines[0], position
        assert loaded.class_names == original.class_names and loaded.digest == original.digest
        np.testing.assert_array_equal(loaded.train_labels, original.train_labels)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"arrays": {}}'])
def test_corrupt_meta_is_rebuilt_with_one_line(npz, tmp_path, text):
    cache = tmp_path / "cache"
    original, _ = _load(npz, cache)
    (cache / "datasets" / _entries(cache)[0] / "meta.json").write_text(text)
    rebuilt, lines = _load(npz, cache)
    assert len(lines) == 1 and "corrupt" in lines[0] and rebuilt.digest == original.digest
    assert _load(npz, cache)[1] == []


def test_unwritable_cache_is_logged_and_passed_over(npz, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    dataset, lines = _load(npz, blocked / "cache")
    assert len(dataset.train_labels) == 6
    assert len(lines) == 1 and "without caching" in lines[0]


def test_full_disk_is_logged_and_leaves_nothing(npz, tmp_path, monkeypatch):
    def fail(path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flax_resnet.data.cache.np.save", fail)
    dataset, lines = _load(npz, tmp_path / "cache")
    assert len(dataset.train_labels) == 6
    assert len(lines) == 1 and "No space left" in lines[0]
    assert _entries(tmp_path / "cache") == []


def test_source_that_changes_while_it_is_read_is_not_cached(npz, tmp_path, monkeypatch):
    from flax_resnet.data import load as datasets

    def read_and_touch(*args):
        dataset = read(*args)
        _write_npz(npz, value=9)
        return dataset

    read = datasets.read_npz
    monkeypatch.setattr("flax_resnet.data.load.read_npz", read_and_touch)
    _, lines = _load(npz, tmp_path / "cache")
    assert len(lines) == 1 and "changed while it was read" in lines[0]
    assert not (tmp_path / "cache").exists()


def test_leftovers_of_killed_processes_are_removed_after_a_day(npz, tmp_path):
    folder = tmp_path / "cache" / "datasets"
    old, young = folder / ".unfinished-old", folder / ".unfinished-young"
    for path in (old, young):
        path.mkdir(parents=True)
    os.utime(old, (0, time.time() - 90_000))
    _load(npz, tmp_path / "cache")
    assert young.exists() and not old.exists()


def test_processes_storing_at_once_do_not_disturb_each_other(npz, tmp_path):
    command = [
        sys.executable,
        "-c",
        "import sys; from pathlib import Path; from flax_resnet.data.load import load_dataset\n"
        "print(load_dataset(sys.argv[1], cache_dir=Path(sys.argv[2])).digest)",
        str(npz),
        str(tmp_path / "cache"),
    ]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert {output for output, _ in outputs} == {f"{_load(npz, tmp_path / 'cache')[0].digest}\n"}
    assert len(_entries(tmp_path / "cache")) == 1


def test_cache_hit_imports_neither_tensorflow_nor_sklearn(npz, tmp_path):
    cache = tmp_path / "cache"
    _load("digits", cache)
    _load(npz, cache)
    script = (
        "import sys; from pathlib import Path; from flax_resnet.data.load import load_dataset\n"
        "for name in sys.argv[2:]: load_dataset(name, cache_dir=Path(sys.argv[1]))\n"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'sklearn') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(cache), "digits", str(npz)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"


def test_meta_says_what_the_entry_holds(npz, tmp_path):
    dataset, _ = _load(npz, tmp_path / "cache")
    (entry,) = _entries(tmp_path / "cache")
    assert entry.startswith("data-")
    meta = json.loads((tmp_path / "cache" / "datasets" / entry / "meta.json").read_text())
    assert meta["digest"] == dataset.digest and meta["class_names"] == ["0", "1"]
    assert meta["arrays"]["train_images"]["shape"] == [6, 4, 4, 3]
