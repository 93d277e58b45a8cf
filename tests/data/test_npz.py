import io
import zipfile

import numpy as np
import pytest

from tests.dataset_files import load, refused, write_npz


def test_npz_arrays_are_loaded(tmp_path):
    fields = write_npz(tmp_path / "a.npz", class_names=np.array(["cat", "dog", "élan"]))
    dataset = load(tmp_path / "a.npz", tmp_path)
    np.testing.assert_array_equal(dataset.train_images, fields["x_train"])
    np.testing.assert_array_equal(dataset.test_labels, fields["y_test"])
    assert dataset.train_labels.dtype == np.int32
    assert dataset.class_names == ("cat", "dog", "élan")
    assert dataset.image_shape == (4, 4, 3)
    assert "a.npz" in dataset.source


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1)])
def test_npz_grey_becomes_three_equal_channels(tmp_path, shape):
    grey = np.random.RandomState(0).randint(0, 256, (10, *shape)).astype(np.uint8)
    write_npz(tmp_path / "a.npz", x_train=grey)
    dataset = load(tmp_path / "a.npz", tmp_path)
    for channel in range(3):
        np.testing.assert_array_equal(dataset.train_images[..., channel], grey.reshape(10, 4, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_npz_labels_of_any_integer_kind_and_as_a_column(tmp_path, dtype):
    write_npz(tmp_path / "a.npz", y_train=(np.arange(10) % 3).astype(dtype)[:, None])
    np.testing.assert_array_equal(
        load(tmp_path / "a.npz", tmp_path).train_labels, np.arange(10) % 3
    )


def test_npz_images_are_resized(tmp_path):
    write_npz(tmp_path / "a.npz", x_test=np.zeros((4, 9, 7), np.uint8))
    assert "config.image_size" in refused(tmp_path / "a.npz", tmp_path)
    dataset = load(tmp_path / "a.npz", tmp_path, image_size=6)
    assert dataset.test_images.shape == (4, 6, 6, 3) and dataset.image_shape == (6, 6, 3)


BAD_FIELDS = {
    "x_train is missing": ("x_train", None, "has no x_train"),
    "float images": ("x_train", np.zeros((10, 4, 4, 3), np.float32), "x_train is float32"),
    "channels first": ("x_test", np.zeros((4, 3, 9, 9), np.uint8), "channels last"),
    "flat images": ("x_test", np.zeros((4, 48), np.uint8), "x_test has shape"),
    "float labels": ("y_train", np.zeros(10), "y_train is float64"),
    "one-hot labels": ("y_train", np.eye(10, dtype=int), "y_train has shape"),
    "too few labels": ("y_train", np.zeros(9, int), "y_train has 9 labels"),
    "negative training label": ("y_train", np.full(10, -1), "y_train has the label -1"),
    "negative test label": ("y_test", np.full(4, -1), "y_test has the label -1"),
    "test label of no class": ("y_test", np.full(4, 3), "y_test has the label 3"),
    "huge label": ("y_train", np.full(10, 2**40), "y_train has the label"),
    "empty test split": ("x_test", np.zeros((0, 4, 4, 3), np.uint8), "x_test has 0 images"),
    "no pixels": ("x_train", np.zeros((10, 0, 4, 3), np.uint8), "x_train"),
    "class names as objects": ("class_names", np.array(["a", 1], object), "class_names"),
    "class names as bytes": ("class_names", np.array([b"a", b"b", b"c"]), "class_names"),
    "label beyond the names": ("class_names", np.array(["a", "b"]), "y_train has the label 2"),
    "images as objects": ("x_train", np.array([None] * 10), "x_train"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_npz_field_that_is_wrong_is_named_in_one_line(tmp_path, case):
    field, array, expected = BAD_FIELDS[case]
    write_npz(tmp_path / "bad.npz", **{field: array})
    message = refused(tmp_path / "bad.npz", tmp_path)
    assert expected in message and "bad.npz" in message and "\n" not in message
    # Resizing comes before some of the checks and must not fall over what they would refuse.
    assert "bad.npz" in refused(tmp_path / "bad.npz", tmp_path, image_size=6)


def test_npz_with_both_splits_empty_is_refused(tmp_path):
    empty = {"x_train": np.zeros((0, 4, 4), np.uint8), "y_train": np.zeros(0, int)}
    write_npz(tmp_path / "a.npz", **empty)
    assert "x_train is empty" in refused(tmp_path / "a.npz", tmp_path)


def test_damaged_npz_is_refused_by_name(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[400] ^= 0xFF
    for damaged in (b"", b"no zip", content[:1000], bytes(flipped)):
        path.write_bytes(damaged)
        message = refused(path, tmp_path)
        assert str(path) in message and "\n" not in message
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY nonsense")
    assert str(path) in refused(path, tmp_path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    assert str(path) in refused(path, tmp_path)


def _with_header(path, name, shape, payload=b"", method=zipfile.ZIP_STORED):
    """Puts an array that claims a shape, and holds other bytes, into a .npz file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    content[f"{name}.npy"] = header.getvalue() + payload
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in content.items():
            archive.writestr(member, data)


@pytest.mark.parametrize("name", ["x_train", "y_train", "y_test"])
@pytest.mark.parametrize("shape", [(10**15, 4, 4, 3), (10**12,), (2**40, 2**40), (-1, 4, 4, 3)])
def test_npz_header_that_claims_too_much_is_refused(tmp_path, name, shape):
    write_npz(tmp_path / "a.npz")
    _with_header(tmp_path / "a.npz", name, shape)
    assert f"{name} is damaged" in refused(tmp_path / "a.npz", tmp_path)


def test_npz_bomb_is_refused_before_it_unpacks(tmp_path):
    size = 50_000_000
    for name in ("y_train", "x_test", "y_test"):
        write_npz(tmp_path / "a.npz")
        _with_header(tmp_path / "a.npz", name, (size,), b"\0" * size, zipfile.ZIP_DEFLATED)
        assert (tmp_path / "a.npz").stat().st_size < 1_000_000
        message = refused(tmp_path / "a.npz", tmp_path, memory_limit=10_000_000)
        assert name in message and "0.1 GB" in message


def test_npz_with_a_field_renamed_by_damage_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, class_names=np.array(["a", "b", "c"]))
    content = path.read_bytes()
    place = content.rindex(b"class_names.npy")  # in the index, which no checksum covers
    path.write_bytes(content[:place] + b"clbss" + content[place + 5 :])
    assert "a.npz" in refused(path, tmp_path)


def test_npz_with_a_password_or_an_unknown_compression_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    content = path.read_bytes()
    for offset, value in ((8, 1), (10, 77)):  # the flags and the method of the first member
        damaged = bytearray(content)
        damaged[content.index(b"PK\x01\x02") + offset] = value
        path.write_bytes(damaged)
        assert "a.npz" in refused(path, tmp_path)
