from hashlib import sha256

import numpy as np
import pytest

from flax_resnet.data.sources.cifar10_archive import ARCHIVE_SHA256, read_cifar10_archive
from flax_resnet.process.errors import UserError
from tests.dataset_files import refused, write_archive


def test_archive_is_parsed_into_rgb_images_in_order(tmp_path):
    path = tmp_path / "a.tar.gz"
    digest = write_archive(path, extra={"../../evil.bin": b"not to be touched"})
    dataset = read_cifar10_archive(path, sha256=digest, images_per_file=2)
    assert dataset.train_images.shape == (10, 32, 32, 3)
    assert np.asarray(dataset.train_images)[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (np.asarray(dataset.test_images)[..., 0] == 5).all()
    assert (np.asarray(dataset.train_images)[..., 1] == 100).all()
    assert (np.asarray(dataset.train_images)[..., 2] == np.arange(32)).all()
    assert dataset.train_labels.tolist() == [0, 1] * 5
    assert dataset.class_names == ("airplane", "ship")
    small = read_cifar10_archive(path, 8, sha256=digest, images_per_file=2)
    assert small.image_shape == (8, 8, 3)


def test_archive_with_another_checksum_is_refused_with_both(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    found = write_archive(path)
    error = refused("cifar10", tmp_path, archive=str(path))
    assert (error.code, error.field) == ("unreadable", "config.archive")
    assert found in str(error) and ARCHIVE_SHA256 in str(error) and str(path) in str(error)


def test_archive_that_lacks_a_file_or_has_a_short_one_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    for changes, code, fact in (
        ({"drop": ("data_batch_3.bin",)}, "unreadable", "cifar-10-batches-bin/data_batch_3.bin"),
        ({"extra": {"test_batch.bin": b"short"}}, "unreadable", "5 bytes"),
        ({"extra": {"batches.meta.txt": b"one\n"}}, "invalid", "label 1"),
    ):
        digest = write_archive(path, **changes)
        with pytest.raises(UserError, match=fact) as caught:
            read_cifar10_archive(path, sha256=digest, images_per_file=2)
        assert caught.value.code == code
    path.write_bytes(path.read_bytes()[:-30])
    digest = sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError) as caught:
        read_cifar10_archive(path, sha256=digest, images_per_file=2)
    assert (caught.value.code, caught.value.field) == ("unreadable", "config.archive")
