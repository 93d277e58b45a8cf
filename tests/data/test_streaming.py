import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.batches import TrainBatches, eval_chunks
from flax_resnet.data.dataset import Dataset
from flax_resnet.data.image_files import decode_image
from flax_resnet.data.resize import Box, decode_box, decode_native, resize_box
from flax_resnet.data.sources.records import ArrayRecords, TfRecords
from flax_resnet.data.sources.tfds import find_prepared
from flax_resnet.data.streaming import StreamedImages, middle, same_images
from flax_resnet.data.transforms import build_transforms
from flax_resnet.data.transforms.resized_crop import RandomResizedCrop
from flax_resnet.process.errors import UserError
from tests.dataset_files import limit_memory, load, refused, write_folder, write_npz, write_photos


def batches(dataset: Dataset, rows=None, **transforms) -> TrainBatches:
    return TrainBatches(
        dataset.train_images,
        dataset.train_labels,
        batch_size=4,
        seed=3,
        transforms=build_transforms(**{"crop_padding": 0, "flip": True} | transforms),
        drop_last=False,
        steps_per_chunk=2,
        rows=rows or (lambda size: slice(0, size)),
    )


def assert_same(one: Dataset, other: Dataset, rows=None, first_step=0, **transforms) -> None:
    assert one.class_names == other.class_names
    pair = [batches(d, rows, **transforms).epoch(2, first_step) for d in (one, other)]
    for a, b in zip(*pair, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 14)


@pytest.fixture(scope="module")
def pair(photos, tmp_path_factory) -> tuple[Dataset, Dataset]:
    """The same photos in memory and on disk."""
    cache = tmp_path_factory.mktemp("pair")
    stays, streams = (load(photos, cache, image_size=32, loading=x) for x in ("memory", "stream"))
    return stays, streams


def test_streamed_photos_are_those_in_memory_whole_from_the_middle_and_by_process(pair):
    stays, streams = pair
    assert isinstance(streams.train_images, StreamedImages)
    assert same_images(stays.train_images, streams.train_images)
    assert same_images(stays.test_images, streams.test_images)
    assert not same_images(stays.train_images, stays.test_images)
    assert_same(stays, streams, crop_padding=4)
    assert_same(stays, streams, crop_padding=4, first_step=3)
    for rows in (slice(0, 2), slice(2, 4)):
        assert_same(stays, streams, lambda size, rows=rows: rows if size == 4 else slice(0, size))


def test_splits_and_subsets_are_the_same_images(pair):
    parts = [dataset.first(10, 3).split_validation(4, seed=5) for dataset in pair]
    (rest, images, labels), (other, streamed, other_labels) = parts
    np.testing.assert_array_equal(labels, other_labels)
    assert same_images(images, streamed) and same_images(rest.train_images, other.train_images)
    assert same_images(rest.test_images, other.test_images) and len(other.test_images) == 3


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3)])
def test_evaluation_reads_each_image_once(pair, rows):
    stays, streams = (
        list(eval_chunks(dataset.train_images, dataset.train_labels, 4, 2, rows))
        for dataset in pair
    )
    for a, b in zip(stays, streams, strict=True):
        for x, y in ((a.images, b.images), (a.labels, b.labels), (a.mask, b.mask)):
            np.testing.assert_array_equal(x, y)
    whole = list(eval_chunks(pair[0].train_images, pair[0].train_labels, 4, 2))
    np.testing.assert_array_equal(whole[1].images[:, rows], streams[1].images)
    np.testing.assert_array_equal(whole[1].mask[:, rows], streams[1].mask)


def test_images_of_their_own_size_give_the_same_resized_crops(tmp_path):
    folder = write_folder(tmp_path / "set", size=(12, 12))
    stays, streams = (load(folder, tmp_path, loading=x) for x in ("memory", "stream"))
    assert_same(stays, streams, resized_crop=0.08)
    Image.new("RGB", (9, 5), "red").save(folder / "train" / "red" / "2.png")
    changed = load(folder, tmp_path, loading="stream")
    assert changed.digest != streams.digest
    with pytest.raises(UserError, match="2.png.*image_size"):
        changed.train_images[:]


def test_resized_crops_have_the_recipes_areas_and_aspects():
    crop = RandomResizedCrop(0.08)
    draws = crop.draw(0, 0, np.arange(4000))
    boxes = np.array([crop.box(300, 400, drawn) for drawn in draws])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (top + height <= 300).all() and height.min() > 0
    assert (left >= 0).all() and (left + width <= 400).all() and width.min() > 0
    area, aspect = height * width / 120_000, width / height
    assert 0.078 < area.min() < 0.1 and 0.95 < area.max() <= 1
    assert 3 / 4 - 0.02 < aspect.min() < 0.78 and 1.3 < aspect.max() < 4 / 3 + 0.02
    # Large crops of the wrong aspect do not fit and are drawn again: fewer than half remain large.
    assert 0.4 < np.median(area) < 0.55
    # The free place is used evenly.
    free = height < 290
    assert abs((top / (300 - height).clip(1))[free].mean() - 0.5) < 0.02
    np.testing.assert_array_equal(draws, crop.draw(0, 0, np.arange(4000)))
    assert (crop.draw(0, 1, np.arange(4000)) != draws).any()
    # None of ten tries fits a strip: its middle is taken.
    assert crop.box(10, 1000, draws[0]) == Box(0, 493, 10, 13)


def test_a_resized_crop_is_pillows(photos):
    image = decode_image((photos / "train" / "a" / "00.jpg").read_bytes(), "")
    box = Box(10, 5, 50, 40)
    expected = Image.fromarray(image).crop((5, 10, 45, 60)).resize((32, 24), 2)
    np.testing.assert_array_equal(resize_box(image, box, (24, 32)), np.asarray(expected))


def photo(width: int = 200, height: int = 160, **options) -> bytes:
    random = np.random.RandomState(0)
    image = Image.fromarray(random.randint(0, 256, (4, 5, 3), np.uint8))
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=95, **options
    )
    return buffer.getvalue()


def find_box(height: int, width: int) -> Box:
    return Box(height // 8, width // 8, 3 * height // 4, 3 * width // 4)


@pytest.mark.parametrize("native", [False, True])
def test_a_jpeg_is_decoded_no_larger_than_its_part_needs(native, monkeypatch):
    if native:
        pytest.importorskip("cv2")
        pytest.importorskip("simplejpeg")
    seen = []
    resize = resize_box
    monkeypatch.setattr(
        "flax_resnet.data.resize.resize_box",
        lambda image, *rest: (
            seen.append((np.asarray(image).shape[:2], rest[0])) or resize(image, *rest)
        ),
    )
    data = photo()
    for size, shape, box in (
        ((100, 100), (160, 200), Box(20, 25, 120, 150)),
        ((60, 60), (80, 100), Box(10, 12, 60, 75)),
        ((20, 20), (40, 50), Box(5, 6, 30, 37)),
    ):
        got = decode_box(data, "", find_box, size, native)
        assert seen[-1] == (shape, box) and got.shape == (*size, 3)
        exact = resize(decode_image(data, ""), find_box(160, 200), size, native)
        difference = np.abs(got.astype(int) - exact)
        assert difference.max() <= (0 if shape == (160, 200) else 24)


def test_the_native_decoder_gives_pillows_pixels():
    pytest.importorskip("simplejpeg")
    pytest.importorskip("cv2")
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in (photo(), photo(37, 53), photo(exif=turned), photo(subsampling=0), photo(64, 64)):
        for divisor in (1, 2, 4):
            image, shape = decode_native(data, lambda h, w, d=divisor: d)
            with Image.open(io.BytesIO(data)) as opened:
                opened.draft(None, (opened.width // divisor, opened.height // divisor))
                upright = opened.getexif().get(0x0112, 1) == 1
                expected = np.asarray(opened)
            expected = expected if upright else np.rot90(expected, -1)
            np.testing.assert_array_equal(np.asarray(image), expected)
            assert shape == decode_image(data, "").shape[:2]
    image, _ = decode_native(photo(exif=b"Exif\0\0no header"))
    np.testing.assert_array_equal(image, decode_native(photo())[0])
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 200, 200, 0)).save(buffer, "JPEG")
    image, _ = decode_native(buffer.getvalue())
    np.testing.assert_array_equal(np.asarray(image), decode_image(buffer.getvalue(), ""))
    with pytest.raises(UserError, match="^cannot be read"):
        decode_native(photo()[:2000])


def test_the_middle_is_as_resize_and_center_crop(pair):
    stays, streams = pair
    whole = stays.test_images[:][0]
    middles = middle(stays.test_images, 0.875)[:]
    expected = Image.fromarray(whole).resize((32, 32), 3, box=(2, 2, 30, 30))
    np.testing.assert_array_equal(middles[0], np.asarray(expected))
    read = middle(streams.test_images, 0.875)[:]
    assert 0 < np.abs(read.astype(int) - middles).mean() < 3  # the streamed is resized once
    assert middle(stays.test_images, 1.0) is stays.test_images


def test_auto_streams_what_would_not_fit_and_says_so(photos, tmp_path, monkeypatch, log_lines):
    def auto(num_bytes, **options):
        limit_memory(monkeypatch, num_bytes)
        return load(photos, tmp_path, image_size=32, loading="auto", **options)

    needed = 18 * 32 * 32 * 3
    assert auto(needed - 1).is_streamed
    (line,) = log_lines
    assert line.endswith(": streaming them from disk") and "18 images of 32x32" in line
    assert not auto(2 * needed).is_streamed
    assert auto(needed - 1).is_streamed  # nor are they loaded from the cache of decoded images
    npz = tmp_path / "small.npz"
    write_npz(npz)
    limit_memory(monkeypatch, 10)
    assert refused(npz, tmp_path, loading="auto").code == "out_of_memory"
    error = refused(npz, tmp_path, loading="stream")
    assert error.field == "config.data_loading"


def test_a_corrupt_image_is_named_when_it_is_read(photos, tmp_path):
    folder = write_photos(tmp_path / "set")
    (folder / "train" / "b" / "03.jpg").write_bytes(b"no image")
    dataset = load(folder, tmp_path, image_size=8, loading="stream")
    with pytest.raises(UserError, match="03.jpg") as caught:
        list(batches(dataset).epoch(0))
    assert caught.value.code == "unreadable"
    (folder / "train" / "b" / "03.jpg").unlink()
    with pytest.raises(UserError, match="03.jpg"):
        dataset.train_images[:]


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory) -> Path:
    """Twelve PNGs, as TFRecord in two files and as ArrayRecord."""
    from flax_resnet.data.sources.tfds_download import import_tensorflow, import_tfds

    import_tensorflow()
    tfds = import_tfds()
    data_dir = tmp_path_factory.mktemp("tfds")
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (18, 8, 8, 3)).astype(np.uint8)
    examples = [{"image": image, "label": i % 3} for i, image in enumerate(images)]
    for name, options in (
        ("records", {"download_config": tfds.download.DownloadConfig(num_shards=2)}),
        ("arrays", {"file_format": "array_record"}),
    ):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3)),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            split_datasets={
                "train": list(enumerate(examples[:12])),
                "test": list(enumerate(examples[12:])),
            },
            data_dir=str(data_dir),
            **options,
        )
    return data_dir


@pytest.mark.parametrize("name, kind", [("records", TfRecords), ("arrays", ArrayRecords)])
def test_records_are_streamed_as_they_are_loaded(name, kind, tfds_dir, tmp_path, monkeypatch):
    if kind is ArrayRecords:
        pytest.importorskip("array_record")
    data_dir = str(tfds_dir)
    stays = load(name, tmp_path, data_dir=data_dir)
    streams = load(name, tmp_path, data_dir=data_dir, loading="stream")
    assert same_images(stays.test_images, streams.test_images)
    assert_same(stays, streams, crop_padding=2)
    assert_same(stays, streams, first_step=2, resized_crop=0.2)
    monkeypatch.setattr(kind, "scan", pytest.fail)  # places and labels were kept
    again = load(name, tmp_path, data_dir=data_dir, loading="stream")
    assert again.digest == streams.digest
    assert same_images(again.train_images, stays.train_images)


def test_damaged_records_are_named(tfds_dir, tmp_path):
    import shutil

    shutil.copytree(tfds_dir / "records", tmp_path / "records")
    dataset = load("records", tmp_path, data_dir=str(tmp_path), loading="stream")
    folder = tmp_path / "records" / "1.0.0"
    shard = sorted(folder.glob("*train*"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes(60) + whole[100:])
    with pytest.raises(UserError, match=shard.name) as caught:
        dataset.train_images[:]
    assert caught.value.code == "unreadable"
    shard.write_bytes(whole[:-10])  # the files changed, so they are read through again
    error = refused("records", tmp_path, data_dir=str(tmp_path), loading="stream")
    assert error.code == "unreadable" and "cut short" in str(error)


@pytest.mark.cifar10
def test_streamed_cifar10_is_cifar10_in_memory(tmp_path):
    if find_prepared("cifar10", Path(os.environ.get("TFDS_DATA_DIR") or tmp_path)) is None:
        pytest.skip("TFDS_DATA_DIR holds no prepared cifar10")
    stays, streams = (load("cifar10", tmp_path, loading=x) for x in ("memory", "stream"))
    assert stays.train_labels.tolist() == streams.train_labels.tolist()
    assert math.prod(streams.train_images.shape) == stays.train_images.size
    assert same_images(stays.test_images, streams.test_images)
    assert same_images(stays.train_images, streams.train_images)
    for options in ({"crop_padding": 4}, {"resized_crop": 0.08}):
        pair = [batches(d.first(3000, None), **options).epoch(1, 700) for d in (stays, streams)]
        for a, b in zip(*pair, strict=True):
            np.testing.assert_array_equal(a.images, b.images)
