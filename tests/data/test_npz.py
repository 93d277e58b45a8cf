import io
import shutil
import zipfile

import numpy as np
import pytest

from tests.dataset_files import limit_memory, load, refused, write_npz


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
    images = np.asarray(dataset.train_images)
    for channel in range(3):
        np.testing.assert_array_equal(images[..., channel], grey.reshape(10, 4, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_npz_labels_of_any_integer_kind_and_as_a_column(tmp_path, dtype):
    write_npz(tmp_path / "a.npz", y_train=(np.arange(10) % 3).astype(dtype)[:, None])
    np.testing.assert_array_equal(
        load(tmp_path / "a.npz", tmp_path).train_labels, np.arange(10) % 3
    )


def test_npz_images_are_resized(tmp_path):
    write_npz(tmp_path / "a.npz", x_test=np.zeros((4, 9, 7), np.uint8))
    error = refused(tmp_path / "a.npz", tmp_path)
    assert (error.code, error.field) == ("conflict", "config.image_size")
    dataset = load(tmp_path / "a.npz", tmp_path, image_size=6)
    assert dataset.test_images.shape == (4, 6, 6, 3) and dataset.image_shape == (6, 6, 3)


BAD_FIELDS = {  # what is wrong: (field, its array, the error's code, what it must mention)
    "x_train is missing": ("x_train", None, "missing", "y_test"),
    "float images": ("x_train", np.zeros((10, 4, 4, 3), np.float32), "invalid", "float32"),
    "channels first": ("x_test", np.zeros((4, 3, 9, 9), np.uint8), "invalid", "[4, 3, 9, 9]"),
    "flat images": ("x_test", np.zeros((4, 48), np.uint8), "invalid", "[4, 48]"),
    "float labels": ("y_train", np.zeros(10), "invalid", "float64"),
    "one-hot labels": ("y_train", np.eye(10, dtype=int), "invalid", "[10, 10]"),
    "too few labels": ("y_train", np.zeros(9, int), "conflict", "9 labels"),
    "negative training label": ("y_train", np.full(10, -1), "invalid", "-1"),
    "negative test label": ("y_test", np.full(4, -1), "invalid", "-1"),
    "test label of no class": ("y_test", np.full(4, 3), "invalid", "0 to 2"),
    "huge label": ("y_train", np.full(10, 2**40), "invalid", str(2**40)),
    "empty test split": ("x_test", np.zeros((0, 4, 4, 3), np.uint8), "conflict", "0 images"),
    "no pixels": ("x_train", np.zeros((10, 0, 4, 3), np.uint8), "invalid", "[10, 0, 4, 3]"),
    "class names as objects": ("class_names", np.array(["a", 1], object), "unreadable", "objects"),
    "no characters": ("class_names", np.full(3, 2**31, "u4").view("U1"), "corrupt", "character"),
    "class names as bytes": ("class_names", np.array([b"a", b"b", b"c"]), "invalid", "S1"),
    "label beyond the names": ("class_names", np.array(["a", "b"]), "invalid", "label 2"),
    "images as objects": ("x_train", np.array([None] * 10), "unreadable", "objects"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_npz_field_that_is_wrong_is_named_in_one_line(tmp_path, case):
    field, array, code, fact = BAD_FIELDS[case]
    path = tmp_path / "bad.npz"
    write_npz(path, **{field: array})
    error = refused(path, tmp_path)
    assert error.code == code and error.field and error.field.startswith(f"{path}: ")
    assert fact in str(error) and str(path) in str(error)
    # Resizing comes before some of the checks and must not fail on what they would refuse.
    assert "bad.npz" in str(refused(path, tmp_path, image_size=6))


def test_npz_with_both_splits_empty_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, x_train=np.zeros((0, 4, 4), np.uint8), y_train=np.zeros(0, int))
    assert refused(path, tmp_path).field == f"{path}: x_train"


def test_npz_that_is_corrupt_is_refused_by_name(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[400] ^= 0xFF

    def assert_refused():
        error = refused(path, tmp_path)
        assert error.code == "unreadable" and str(path) in str(error)

    for damaged in (b"", b"no zip", content[:1000], bytes(flipped)):
        path.write_bytes(damaged)
        assert_refused()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY nonsense")
    assert_refused()
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    assert_refused()


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
    path = tmp_path / "a.npz"
    write_npz(path)
    _with_header(path, name, shape)
    error = refused(path, tmp_path)
    assert (error.code, error.field) == ("unreadable", f"{path}: {name}")


def test_npz_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    limit_memory(monkeypatch, 10_000_000)
    monkeypatch.setattr(np.lib.format, "read_array", pytest.fail)
    path, size = tmp_path / "a.npz", 50_000_000
    for name in ("y_train", "x_test", "y_test"):
        write_npz(path)
        _with_header(path, name, (size,), b"\0" * size, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 1_000_000
        error = refused(path, tmp_path)
        assert error.code == "out_of_memory" and str(path) in str(error)


def test_npz_whose_fields_fit_one_by_one_but_not_together_is_refused_unread(tmp_path, monkeypatch):
    path, size = tmp_path / "a.npz", 1_000_000
    fields = write_npz(path)
    for name in fields:
        _with_header(path, name, (size,), b"\0" * size, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(np.lib.format, "read_array", pytest.fail)
    limit_memory(monkeypatch, 4 * size)
    assert refused(path, tmp_path).code == "out_of_memory"


@pytest.mark.parametrize("image_size, extra", [(None, 14 * 48), (2, 14 * 48 + 14 * 12)])
def test_npz_of_gray_images_is_refused_where_their_rgb_images_would_not_fit(
    tmp_path, monkeypatch, image_size, extra
):
    path = tmp_path / "a.npz"
    write_npz(path, x_train=np.zeros((10, 4, 4), np.uint8), x_test=np.zeros((4, 4, 4), np.uint8))
    with zipfile.ZipFile(path) as archive:
        needed = sum(info.file_size for info in archive.infolist()) + extra
    limit_memory(monkeypatch, needed)
    assert load(path, tmp_path, image_size=image_size).num_classes == 3
    shutil.rmtree(tmp_path / "cache")
    limit_memory(monkeypatch, needed - 1)
    assert refused(path, tmp_path, image_size=image_size).code == "out_of_memory"


@pytest.mark.parametrize("field", [b"class_names", b"y_test"])
def test_npz_with_a_field_renamed_by_damage_is_refused(tmp_path, field):
    path = tmp_path / "a.npz"
    write_npz(path, class_names=np.array(["a", "b", "c"]))
    content = path.read_bytes()
    place = content.rindex(field + b".npy")  # in the index, which no checksum covers
    path.write_bytes(content[:place] + b"q" + content[place + 1 :])
    assert refused(path, tmp_path).code in ("unreadable", "missing")


def test_npz_with_a_password_or_an_unknown_compression_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    content = path.read_bytes()
    for offset, value in ((8, 1), (10, 77)):  # the flags and the method of the first member
        damaged = bytearray(content)
        damaged[content.index(b"PK\x01\x02") + offset] = value
        path.write_bytes(damaged)
        error = refused(path, tmp_path)
        assert (error.code, error.field) == ("unreadable", str(path))
