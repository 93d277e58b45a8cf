import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flax_resnet.data.sources.tfds import find_prepared
from tests.dataset_files import limit_memory, load, refused


def test_newest_or_named_version_of_a_prepared_set_is_found(tmp_path):
    for folder in ("a/1.9.0", "a/1.10.0", "a/2.0.0.incomplete", "b/x/1.0.0", "b/y/1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text("{}")
    (tmp_path / "a/3.0.0").mkdir()  # without its info it was never finished
    (tmp_path / "b/.config").mkdir()
    (tmp_path / "b/.config/metadata.json").write_text('{"default_config_name": "y"}')

    def full_name(name):
        prepared = find_prepared(name, tmp_path)
        return prepared and prepared.full_name

    assert full_name("a") == "a:1.10.0"
    assert full_name("a:1.9.0") == "a:1.9.0"
    assert full_name("a:1.*.*") == "a:1.10.0"
    assert full_name("a:2.0.0") is None
    assert full_name("b") == "b/y:1.0.0"
    assert full_name("b/x") == "b/x:1.0.0"
    assert full_name("c") is None


def test_imagenet_is_refused_by_its_size_before_anything_else(tmp_path, monkeypatch):
    start = time.monotonic()
    limit_memory(monkeypatch, 10**10)
    for size, fact in ((None, "200.4 GB"), (64, "16.4 GB")):
        error = refused("imagenet2012", tmp_path, data_dir=str(tmp_path), image_size=size)
        assert error.code == "out_of_memory" and fact in str(error)
    limit_memory(monkeypatch, 10**12)
    error = refused("imagenet2012", tmp_path, data_dir=str(tmp_path))
    assert (error.code, error.field) == ("invalid", "config.image_size")
    assert time.monotonic() - start < 1


def test_absent_set_without_network_lists_the_ways_within_ten_seconds(tmp_path):
    script = (
        "import sys; from flax_resnet.data.load import load_dataset\n"
        "from flax_resnet.process.errors import UserError\n"
        "try: load_dataset(sys.argv[1])\n"
        "except UserError as error: print(error.code, error, 'tensorflow' in sys.modules)"
    )
    # A proxy that does not answer, so that the test holds where there is a network too.
    proxy = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "TFDS_DATA_DIR": str(tmp_path),
        "FLAX_RESNET_CACHE": str(tmp_path / "cache"),
        **{name: proxy for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")},
        "NO_PROXY": "",
        "no_proxy": "",
    }

    def message(name):
        start = time.monotonic()
        command = [sys.executable, "-c", script, name]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert time.monotonic() - start < 10
        assert result.stdout.endswith(" False\n")  # TensorFlow was not even imported
        return result.stdout

    absent = message("cifar10")
    assert absent.startswith("unavailable ") and str(tmp_path) in absent
    for way in ("archive=", "data_dir=", "dataset=digits", ".npz", "FOLDER"):
        assert f"\n  --config.{way}" in absent or way in absent
    assert "archive" not in message("mnist")
    misspelled = message("cifra10")
    assert misspelled.startswith("unknown ") and "cifar10 or" in misspelled


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Small sets that tfds itself has prepared; `pixel` tells them apart."""
    from flax_resnet.data.sources.tfds_download import import_tensorflow, import_tfds

    import_tensorflow()
    tfds = import_tfds()
    data_dir = tmp_path_factory.mktemp("tfds")

    def store(name, shape, splits, pixel=0, version="1.0.0", label=None, **options):
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": label or tfds.features.ClassLabel(names=["no", "yes"]),
            "extra": tfds.features.Text(),
        }

        def example(i):
            image = np.full([side or 4 + i for side in shape], pixel + i, np.uint8)
            return {"image": image, "label": i % 2, "extra": "to be left alone"}

        examples = {split: [(i, example(i)) for i in range(num)] for split, num in splits.items()}
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            features=tfds.features.FeaturesDict(features),
            split_datasets=examples,
            data_dir=str(data_dir),
            disable_shuffling=True,
            **options,
        )

    both = {"train": 6, "test": 4}
    store("rgb", (8, 8, 3), both)
    store("rgb", (8, 8, 3), both, pixel=100, version="1.1.0", file_format="array_record")
    store("grey", (8, 8, 1), {"train": 6, "validation": 3})
    store("ragged", (None, None, 3), both)
    store("unsplit", (8, 8, 3), {"train": 6})
    store("unlabeled", (8, 8, 3), both, label=tfds.features.Scalar(np.int64))
    return data_dir


@pytest.mark.parametrize("name, pixel", [("rgb", 100), ("rgb:1.0.0", 0), ("rgb:1.0.*", 0)])
def test_prepared_set_of_any_file_format_is_read(tfds_dir, tmp_path, name, pixel):
    start = time.monotonic()
    dataset = load(name, tmp_path, data_dir=str(tfds_dir))
    assert time.monotonic() - start < 10
    assert np.asarray(dataset.train_images)[:, 0, 0, 0].tolist() == [pixel + i for i in range(6)]
    assert dataset.test_labels.tolist() == [0, 1, 0, 1]
    assert dataset.class_names == ("no", "yes") and str(tfds_dir) in dataset.source


def test_grey_set_and_validation_split_are_read(tfds_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    dataset = load("grey", tmp_path)
    assert dataset.test_images.shape == (3, 8, 8, 3)
    assert np.asarray(dataset.test_images)[2, 0, 0].tolist() == [2, 2, 2]


def test_set_with_images_of_many_sizes_needs_image_size(tfds_dir, tmp_path):
    error = refused("ragged", tmp_path, data_dir=str(tfds_dir))
    assert (error.code, error.field) == ("conflict", "config.image_size")
    dataset = load("ragged", tmp_path, data_dir=str(tfds_dir), image_size=5)
    assert dataset.train_images.shape == (6, 5, 5, 3)
    assert np.asarray(dataset.train_images)[:, 0, 0, 0].tolist() == list(range(6))


def test_set_without_a_needed_part_is_refused(tfds_dir, tmp_path, monkeypatch):
    for name, code, fact in (
        ("unsplit", "missing", "validation"),
        ("unlabeled", "invalid", "ClassLabel"),
    ):
        error = refused(name, tmp_path, data_dir=str(tfds_dir))
        assert (error.code, error.field) == (code, "config.dataset") and fact in str(error)
    limit_memory(monkeypatch, 10)
    assert refused("rgb", tmp_path, data_dir=str(tfds_dir)).code == "out_of_memory"


def test_a_pipe_in_a_prepared_set_is_refused_and_not_waited_for(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "rgb" / "1.0.0", tmp_path / "rgb" / "1.0.0")
    for name in ("features.json", "dataset_info.json"):
        pipe = tmp_path / "rgb" / "1.0.0" / name
        pipe.unlink()
        os.mkfifo(pipe)
        assert refused("rgb", tmp_path, data_dir=str(tmp_path)).code == "unreadable"
    (tmp_path / "other" / ".config").mkdir(parents=True)
    os.mkfifo(tmp_path / "other" / ".config" / "metadata.json")
    assert find_prepared("other", tmp_path) is None


def test_corrupt_files_of_a_prepared_set_are_named(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "rgb", tmp_path / "rgb")
    (shard,) = (tmp_path / "rgb" / "1.0.0").glob("*train.tfrecord*")
    shard.write_bytes(shard.read_bytes()[:-20])
    error = refused("rgb:1.0.0", tmp_path, data_dir=str(tmp_path))
    assert (error.code, error.field) == ("unreadable", str(tmp_path / "rgb" / "1.0.0"))


def test_tensorflow_sees_no_accelerator(tfds_dir):
    import tensorflow as tf

    assert tf.config.get_visible_devices("GPU") == []
    assert tf.config.get_visible_devices("TPU") == []


@pytest.mark.cifar10
def test_real_cifar10_has_its_sizes_and_classes(tmp_path):
    if find_prepared("cifar10", Path(os.environ.get("TFDS_DATA_DIR") or tmp_path)) is None:
        pytest.skip("TFDS_DATA_DIR holds no prepared cifar10")
    dataset = load("cifar10", tmp_path)
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), np.full(10, 5_000))
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), np.full(10, 1_000))
    assert dataset.class_names[0] == "airplane" and dataset.class_names[9] == "truck"
    start = time.monotonic()
    assert load("cifar10", tmp_path).digest == dataset.digest
    assert time.monotonic() - start < 1
