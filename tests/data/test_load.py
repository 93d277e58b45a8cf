import numpy as np
import pytest
from PIL import Image

from tests.dataset_files import load, refused, write_folder, write_npz


def test_folder_classes_are_its_folders_in_order(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "red" / ".0.png").write_text("no image")
    (folder / "train" / "red" / "notes.txt").write_text("no image")
    Image.new("L", (4, 4), 77).save(folder / "train" / "red" / "3.JPEG")
    dataset = load(folder, tmp_path)
    assert dataset.class_names == ("blue", "red")
    assert dataset.train_labels.tolist() == [0, 1, 0, 1, 0, 1, 1]  # the classes take turns
    assert dataset.train_images[0, 0, 0].tolist() == [0, 0, 255]
    assert dataset.train_images[1, 0, 0].tolist() == [255, 0, 0]
    assert dataset.train_images[6, 0, 0].tolist() == [77, 77, 77]
    assert len(dataset.test_labels) == 6


def test_folder_with_images_of_many_sizes_needs_image_size(tmp_path):
    folder = write_folder(tmp_path / "set")
    Image.new("RGB", (9, 5), "red").save(folder / "train" / "red" / "2.png")
    message = refused(folder, tmp_path)
    assert "set config.image_size" in message and "2.png" in message
    assert load(folder, tmp_path, image_size=5).image_shape == (5, 5, 3)


def test_test_split_may_lack_a_class_but_not_add_one(tmp_path):
    folder = write_folder(tmp_path / "set")
    for path in (folder / "test" / "blue").iterdir():
        path.unlink()
    (folder / "test" / "blue").rmdir()
    assert set(load(folder, tmp_path).test_labels) == {1}
    (folder / "test" / "red").rename(folder / "test" / "rot")
    assert "no such class" in refused(folder, tmp_path)


def test_folder_without_its_parts_is_refused(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    assert "has no folder train/" in refused(folder, tmp_path)
    (folder / "train").mkdir()
    assert "no class folders" in refused(folder, tmp_path)
    (folder / "train" / "red").mkdir()
    assert "has no images" in refused(folder, tmp_path)
    Image.new("RGB", (4, 4)).save(folder / "train" / "red" / "a.png")
    assert "has no folder test/" in refused(folder, tmp_path)


def test_damaged_image_of_a_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "test" / "red" / "1.png").write_bytes(b"")
    message = refused(folder, tmp_path)
    assert str(folder / "test" / "red" / "1.png") in message and "\n" not in message


@pytest.mark.parametrize("name", ["./absent", "../absent", "~/absent-folder", "/absent", "a.npz"])
def test_path_that_does_not_exist_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert f"{name} does not exist" in refused(name, tmp_path)


def test_relative_paths_and_home_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "sets" / "mine")
    write_npz(tmp_path / "a.npz")
    for name in ("sets/mine", "./sets/mine", "~/sets/mine", "a.npz", "~/a.npz"):
        assert len(load(name, tmp_path).train_labels) in (6, 10)
    monkeypatch.chdir(tmp_path / "sets")
    assert len(load("mine", tmp_path).train_labels) == 6


def test_folder_that_shares_its_name_with_a_set_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load("digits", tmp_path).num_classes == 10


def test_other_files_and_bad_arguments_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    assert "no .npz" in refused(tmp_path / "a.zip", tmp_path)
    assert "no tfds name" in refused("what is this", tmp_path)
    assert "config.image_size" in refused("digits", tmp_path, image_size=0)
    assert "config.archive" in refused("mnist", tmp_path, archive="a.tar.gz")
    assert "config.archive" in refused("cifar10", tmp_path, archive="absent.tar.gz")


def test_dataset_above_the_memory_limit_is_refused_before_its_pixels_are_read(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / "blue" / "1.png").write_text("reading this would fail")
    for name, num_bytes in ((folder, 12 * 48), (tmp_path / "a.npz", 14 * 48)):
        if name != folder:
            write_npz(name)
        message = refused(name, tmp_path, memory_limit=num_bytes - 1)
        assert "streaming from disk is not there yet" in message and str(name) in message
    assert load(tmp_path / "a.npz", tmp_path, memory_limit=14 * 48).num_classes == 3


def test_digits_have_a_fixed_split(tmp_path):
    dataset = load("digits", tmp_path)
    assert dataset.train_images.shape == (1437, 32, 32, 3)
    assert dataset.class_names == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), np.full(10, 36))
    assert dataset.train_images.min() == 0 and dataset.train_images.max() == 255
    assert (dataset.train_images[..., :1] == dataset.train_images).all()
    # No image is in both splits: 1,797 are different, so all rows are.
    rows = np.concatenate([dataset.train_images, dataset.test_images]).reshape(1797, -1)
    assert len(np.unique(rows, axis=0)) == 1797
    assert load("digits", tmp_path, image_size=8).image_shape == (8, 8, 3)


def test_digits_that_would_not_fit_are_refused_before_they_are_made(tmp_path):
    assert "digits" in refused("digits", tmp_path, image_size=8192, memory_limit=10**9)


@pytest.mark.parametrize(
    "name", ["~no_such_user/x", "a" * 5000, "./" + "a" * 300, "a\0b", "\ud800", "./a\nb", "."]
)
def test_a_name_that_can_be_no_file_is_refused_in_one_line(tmp_path, name):
    message = refused(name, tmp_path, data_dir=str(tmp_path))
    assert len(message.splitlines()) == 1 or "\n" in name
    assert "~no_such_user" in refused("digit", tmp_path, data_dir="~no_such_user/x")
    assert "~no_such_user" in refused("cifar10", tmp_path, archive="~no_such_user/x")


def test_a_link_to_nowhere_among_the_images_is_named(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / "red" / "9.png").symlink_to(tmp_path / "absent")
    assert "9.png" in refused(folder, tmp_path)
