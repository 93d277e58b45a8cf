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
    assert dataset.train_images[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (dataset.test_images[..., 0] == 5).all()
    assert (dataset.train_images[..., 1] == 100).all()
    assert (dataset.train_images[..., 2] == np.arange(32)).all()
    assert dataset.train_labels.tolist() == [0, 1] * 5
    assert dataset.class_names == ("airplane", "ship")
    small = read_cifar10_archive(path, 8, sha256=digest, images_per_file=2)
    assert small.image_shape == (8, 8, 3)


def test_archive_with_another_checksum_is_refused_with_both(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    found = write_archive(path)
    message = refused("cifar10", tmp_path, archive=str(path))
    assert found in message and ARCHIVE_SHA256 in message and str(path) in message


def test_archive_that_lacks_a_file_or_has_a_short_one_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    for changes, expected in (
        ({"drop": ("data_batch_3.bin",)}, "has no cifar-10-batches-bin/data_batch_3.bin"),
        ({"extra": {"test_batch.bin": b"short"}}, "test_batch.bin has 5 bytes"),
        ({"extra": {"batches.meta.txt": b"one\n"}}, "label 1"),
    ):
        digest = write_archive(path, **changes)
        with pytest.raises(UserError, match=expected):
            read_cifar10_archive(path, sha256=digest, images_per_file=2)
    path.write_bytes(path.read_bytes()[:-30])
    digest = sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_cifar10_archive(path, sha256=digest, images_per_file=2)
