import numpy as np
import pytest

from flax_resnet.process.errors import UserError
from tests.dataset_files import load, refused, write_npz


def test_validation_images_are_held_out_of_the_training_images(tmp_path):
    write_npz(
        tmp_path / "a.npz",
        x_train=np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8),
    )
    dataset = load(tmp_path / "a.npz", tmp_path)
    rest, images, labels = dataset.split_validation(3, seed=1)
    held_out, kept = np.asarray(images)[:, 0, 0, 0], np.asarray(rest.train_images)[:, 0, 0, 0]
    assert sorted([*held_out, *kept]) == list(range(10)) and len(held_out) == 3
    np.testing.assert_array_equal(labels, held_out % 3)
    np.testing.assert_array_equal(rest.train_labels, kept % 3)
    assert rest.test_images is dataset.test_images and rest.digest != dataset.digest


def test_validation_split_depends_on_the_seed_only(tmp_path):
    write_npz(tmp_path / "a.npz")
    dataset = load(tmp_path / "a.npz", tmp_path)
    digests = [dataset.split_validation(4, seed)[0].digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert dataset.split_validation(0, 0)[0].digest == dataset.digest


@pytest.mark.parametrize("num", [10, 11, -1])
def test_validation_split_that_leaves_no_training_images_is_refused(tmp_path, num):
    write_npz(tmp_path / "a.npz")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "a.npz", tmp_path).split_validation(num, seed=0)
    assert caught.value.field == "config.validation_split" and "0 to 9" in str(caught.value)


def test_first_keeps_the_first_images(tmp_path):
    fields = write_npz(tmp_path / "a.npz")
    dataset = load(tmp_path / "a.npz", tmp_path)
    few = dataset.first(2, 1)
    np.testing.assert_array_equal(few.train_images, fields["x_train"][:2])
    assert (len(few.train_labels), len(few.test_labels), few.num_classes) == (2, 1, 3)
    assert dataset.first(None, 99).digest == dataset.digest
    for sizes, field in (((0, None), "config.train_images"), ((1, 0), "config.test_images")):
        with pytest.raises(UserError) as caught:
            dataset.first(*sizes)
        assert caught.value.field == field


def test_digest_is_of_the_content_alone(tmp_path):
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "a.npz", tmp_path / "other" / "b.npz"):
        write_npz(path)
    one = load(tmp_path / "a.npz", tmp_path)
    two = load(tmp_path / "other" / "b.npz", tmp_path)
    assert one.digest == two.digest and len(one.digest) == 64
    write_npz(tmp_path / "a.npz", class_names=np.array(["x", "y", "z"]))
    assert load(tmp_path / "a.npz", tmp_path).digest != one.digest


@pytest.mark.parametrize("name", ["cat\x1b[31m", "cat\n", "a\rb", "\udcff", "", " ", "a\u2028b"])
def test_class_names_that_would_act_on_a_terminal_are_refused(tmp_path, name):
    write_npz(tmp_path / "a.npz", class_names=np.array(["dog", name, "élan"]))
    error = refused(tmp_path / "a.npz", tmp_path)
    assert error.code == "invalid" and error.field == str(tmp_path / "a.npz")
    assert str(error).isprintable()
