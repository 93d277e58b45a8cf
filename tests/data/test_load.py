import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.dataset_files import limit_memory, load, refused, write_folder, write_npz


def test_folder_classes_are_its_folders_in_order(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "red" / ".0.png").write_text("no image")
    (folder / "train" / "red" / "notes.txt").write_text("no image")
    Image.new("L", (4, 4), 77).save(folder / "train" / "red" / "3.JPEG")
    dataset = load(folder, tmp_path)
    assert dataset.class_names == ("blue", "red")
    assert dataset.train_labels.tolist() == [0, 1, 0, 1, 0, 1, 1]  # the classes take turns
    corners = np.asarray(dataset.train_images)[:, 0, 0].tolist()
    assert corners[0] == [0, 0, 255] and corners[1] == [255, 0, 0] and corners[6] == [77, 77, 77]
    assert len(dataset.test_labels) == 6


def test_folder_with_images_of_many_sizes_needs_image_size(tmp_path):
    folder = write_folder(tmp_path / "set")
    Image.new("RGB", (9, 5), "red").save(folder / "train" / "red" / "2.png")
    error = refused(folder, tmp_path)
    assert (error.code, error.field) == ("conflict", "config.image_size")
    assert "2.png" in str(error)
    assert load(folder, tmp_path, image_size=5).image_shape == (5, 5, 3)


def test_test_split_may_lack_a_class_but_not_add_one(tmp_path):
    folder = write_folder(tmp_path / "set")
    for path in (folder / "test" / "blue").iterdir():
        path.unlink()
    (folder / "test" / "blue").rmdir()
    assert set(load(folder, tmp_path).test_labels) == {1}
    (folder / "test" / "red").rename(folder / "test" / "rot")
    error = refused(folder, tmp_path)
    assert error.code == "unknown" and "rot" in str(error)


def test_folder_without_its_parts_is_refused(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()

    def assert_missing(fact, where):
        error = refused(folder, tmp_path)
        assert (error.code, error.field) == ("missing", str(where)) and fact in str(error)

    assert_missing("train/", folder)
    (folder / "train").mkdir()
    assert_missing("train/CLASS/", folder / "train")
    (folder / "train" / "red").mkdir()
    assert_missing("png", folder / "train" / "red")
    Image.new("RGB", (4, 4)).save(folder / "train" / "red" / "a.png")
    assert_missing("test/", folder)


def test_corrupt_image_of_a_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "set")
    path = folder / "test" / "red" / "1.png"
    path.write_bytes(b"")
    error = refused(folder, tmp_path)
    assert (error.code, error.field) == ("unreadable", str(path))


@pytest.mark.parametrize("name", ["./absent", "../absent", "~/absent-folder", "/absent", "a.npz"])
def test_path_that_does_not_exist_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    error = refused(name, tmp_path)
    assert (error.code, error.field) == ("missing", "config.dataset") and name in str(error)


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
    for name, options, code, field in (
        (tmp_path / "a.zip", {}, "invalid", "config.dataset"),
        ("/dev/zero", {}, "invalid", "config.dataset"),
        ("what is this", {}, "unknown", "config.dataset"),
        ("digits", {"image_size": 0}, "invalid", "config.image_size"),
        ("mnist", {"archive": "a.tar.gz"}, "invalid", "config.archive"),
        ("cifar10", {"archive": "absent.tar.gz"}, "missing", "config.archive"),
    ):
        error = refused(name, tmp_path, **options)
        assert (error.code, error.field) == (code, field)


def test_dataset_above_the_memory_limit_is_refused_before_its_pixels_are_read(
    tmp_path, monkeypatch
):
    folder = write_folder(tmp_path / "set")
    limit_memory(monkeypatch, 12 * 48)
    assert load(folder, tmp_path).num_classes == 2
    (folder / "train" / "blue" / "1.png").write_text("reading this would fail")
    assert refused(folder, tmp_path).code == "unreadable"
    limit_memory(monkeypatch, 12 * 48 - 1)
    error = refused(folder, tmp_path)
    assert error.code == "out_of_memory" and str(folder) in str(error)


def test_digits_have_a_fixed_split(tmp_path):
    dataset = load("digits", tmp_path)
    assert dataset.train_images.shape == (1437, 32, 32, 3)
    assert dataset.class_names == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), np.full(10, 36))
    train, test = np.asarray(dataset.train_images), np.asarray(dataset.test_images)
    assert train.min() == 0 and train.max() == 255
    assert (train[..., :1] == train).all()
    # No image is in both splits: 1,797 are different, so all rows are.
    rows = np.concatenate([train, test]).reshape(1797, -1)
    assert len(np.unique(rows, axis=0)) == 1797
    assert load("digits", tmp_path, image_size=8).image_shape == (8, 8, 3)


def test_digits_that_would_not_fit_are_refused_before_they_are_made(tmp_path, monkeypatch):
    limit_memory(monkeypatch, 10**9)
    error = refused("digits", tmp_path, image_size=8192)
    assert error.code == "out_of_memory" and "digits" in str(error)


@pytest.mark.parametrize(
    "name", ["~no_such_user/x", "a" * 5000, "./" + "a" * 300, "a\0b", "\ud800", "./a\nb", "."]
)
def test_a_name_that_can_be_no_file_is_refused(tmp_path, name):
    error = refused(name, tmp_path, data_dir=str(tmp_path))
    assert str(error).isprintable() and error.field in ("config.dataset", ".")


@pytest.mark.parametrize("path", ["~no_such_user/x", "a\x1b[31m"])
@pytest.mark.parametrize("name, option", [("digit", "data_dir"), ("cifar10", "archive")])
def test_a_path_that_can_be_no_file_is_refused(tmp_path, name, option, path):
    error = refused(name, tmp_path, **{option: path})
    assert str(error).isprintable() and error.field == f"config.{option}"


def test_a_link_to_nowhere_or_to_itself_among_the_images_is_named(tmp_path):
    for target in ("absent", "9.png"):
        folder = write_folder(tmp_path / target)
        (folder / "train" / "red" / "9.png").symlink_to(target)
        error = refused(folder, tmp_path)
        assert error.code == "unreadable" and "9.png" in str(error)


def test_a_pipe_among_the_images_is_refused_and_not_waited_for(tmp_path):
    folder = write_folder(tmp_path / "set")
    pipe = folder / "train" / "red" / "9.png"
    os.mkfifo(pipe)
    assert refused(folder, tmp_path).field == str(pipe)
    os.mkfifo(tmp_path / "a.npz")
    assert refused(tmp_path / "a.npz", tmp_path).field == "config.dataset"


def test_folders_that_link_to_one_another_end_in_one_line(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / "again").symlink_to(folder / "train")
    assert refused(folder, tmp_path).field == str(folder / "train" / "again")
    (folder / "train" / "again").unlink()
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("test")
    assert refused(folder, tmp_path).field == str(folder)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\udcff"])
def test_a_class_folder_that_would_act_on_a_terminal_is_refused_unread(tmp_path, name, monkeypatch):
    folder = write_folder(tmp_path / "set")
    (folder / "train" / "red").rename(folder / "train" / name)
    monkeypatch.setattr("flax_resnet.data.sources.folder.read_image", pytest.fail)
    error = refused(folder, tmp_path)
    assert error.field == str(folder / "train") and str(error).isprintable()


def test_images_that_are_not_square_keep_their_shape(tmp_path):
    folder = write_folder(tmp_path / "set", size=(32, 16))
    assert load(folder, tmp_path).image_shape == (16, 32, 3)
    assert load(folder, tmp_path, image_size=8).image_shape == (8, 8, 3)
