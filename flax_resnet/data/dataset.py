"""`Dataset`: the images and labels of one dataset, checked when they are put in."""

import dataclasses
import hashlib
import json

import numpy as np
from jaxtyping import Int32, UInt8

from flax_resnet.data.image_arrays import three_channels
from flax_resnet.data.names import check_name
from flax_resnet.data.streaming import Images, StreamedImages, select
from flax_resnet.process.errors import UserError, printable

STREAMED = "stream:"  # begins the digest of a set that is streamed
MAX_CLASSES = 1_000_000  # a larger label is a mistake; naming that many classes takes minutes


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset: labels in memory, images in memory or, where they are streamed, on disk.

    Attributes:
        train_images: uint8, 0-255, shape [N, H, W, 3].
        train_labels: int32, 0 to num_classes - 1, shape [N].
        test_images: uint8, 0-255, shape [M, H, W, 3].
        test_labels: int32, 0 to num_classes - 1, shape [M].
        class_names: the name of each label.
        digest: SHA-256 of the four arrays and the class names, in hexadecimal: the same on every
            machine for the same content in the same order. Of a streamed set, STREAMED and the
            SHA-256 of its records, or of its files' names and sizes.
        source: where the images came from, one line for people.
    """

    train_images: UInt8[np.ndarray, "train height width 3"] | StreamedImages
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width 3"] | StreamedImages
    test_labels: Int32[np.ndarray, " test"]
    class_names: tuple[str, ...]
    digest: str
    source: str

    @property
    def is_streamed(self) -> bool:
        """Whether the images are on disk."""
        return self.digest.startswith(STREAMED)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of every image, in pixels and channels."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    def split_validation(
        self, num: int, seed: int
    ) -> tuple["Dataset", Images, Int32[np.ndarray, " {num}"]]:
        """Holds out a random part of the training images, for choosing between models.

        Args:
            num: how many images to hold out, from 0 to one less than there are.
            seed: the same seed holds out the same images on every machine.

        Returns:
            The dataset without them; the held out images, uint8 [num, H, W, 3]; their labels,
            int32 [num]. All keep the order of the dataset.

        Raises:
            UserError: `num` is out of range.
        """
        size = len(self.train_labels)
        if not 0 <= num < size:
            raise UserError(
                f"{num} validation images cannot be held out of {size} training images; set "
                f"config.validation_split from 0 to {size - 1}",
                field="config.validation_split",
            )
        # RandomState's streams are frozen (NEP 19), so every NumPy gives the same split.
        held_out = np.zeros(size, bool)
        held_out[np.random.RandomState(seed % 2**32).permutation(size)[:num]] = True
        rest = self._with_arrays(
            train_images=select(self.train_images, ~held_out),
            train_labels=self.train_labels[~held_out],
        )
        return rest, select(self.train_images, held_out), self.train_labels[held_out]

    def first(self, train: int | None, test: int | None) -> "Dataset":
        """The first images of each split, for quick trials.

        Args:
            train: how many training images to keep; None, or more than there are: all of them.
            test: the same for the test images.

        Raises:
            UserError: a number below 1.
        """
        for split, num in (("training", train), ("test", test)):
            if num is not None and num < 1:
                field = "config.train_images" if split == "training" else "config.test_images"
                raise UserError(f"{field}: {num} {split} images; keep at least 1", field=field)
        if train is None and test is None:
            return self  # without hashing all of it again
        return self._with_arrays(
            train_images=select(self.train_images, slice(train)),
            train_labels=self.train_labels[:train],
            test_images=select(self.test_images, slice(test)),
            test_labels=self.test_labels[:test],
        )

    def _with_arrays(self, **arrays: Images | np.ndarray) -> "Dataset":
        changed = dataclasses.replace(self, **arrays)
        if self.is_streamed:
            return changed
        return dataclasses.replace(changed, digest=_content_digest(changed))


def _content_digest(dataset: Dataset) -> str:
    """SHA-256 of shapes, class names and little-endian array bytes."""
    arrays = (
        np.asarray(dataset.train_images),
        dataset.train_labels.astype("<i4", copy=False),
        np.asarray(dataset.test_images),
        dataset.test_labels.astype("<i4", copy=False),
    )
    header = [[list(array.shape) for array in arrays], list(dataset.class_names)]
    digest = hashlib.sha256(json.dumps(header).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def make_dataset(
    images: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    class_names: tuple[str, ...] | None,
    *,
    origin: str,
    source: str,
    fields: tuple[str, str, str, str] = (
        "train images",
        "train labels",
        "test images",
        "test labels",
    ),
) -> Dataset:
    """Checks what a source has read and makes it a `Dataset`.

    Args:
        images: training and test images: uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3].
        labels: training and test labels: any integers, [N] or [N, 1].
        class_names: the classes; None to count them in the training labels and name them "0", ...
        origin: the file or dataset that an error names.
        source: see `Dataset`.
        fields: what an error calls train images, train labels, test images and test labels.

    Raises:
        UserError: wrong dtypes, shapes, labels or class names, or an empty split.
    """
    for name in class_names or ():
        check_name(name, f"{origin}: the class", origin)
    train_labels, test_labels = (
        _label_vector(array, f"{origin}: {field}")
        for array, field in zip(labels, fields[1::2], strict=True)
    )
    rgb = [
        three_channels(array, f"{origin}: {field}")
        for array, field in zip(images, fields[::2], strict=True)
    ]
    _check_lengths_and_sizes(rgb, (train_labels, test_labels), origin, fields)
    num_classes = len(class_names) if class_names else int(train_labels.max()) + 1
    for vector, field in ((train_labels, fields[1]), (test_labels, fields[3])):
        _check_labels(vector, min(num_classes, MAX_CLASSES), f"{origin}: {field}")
    dataset = Dataset(
        np.ascontiguousarray(rgb[0]),
        train_labels.astype(np.int32),
        np.ascontiguousarray(rgb[1]),
        test_labels.astype(np.int32),
        class_names or tuple(str(label) for label in range(num_classes)),
        digest="",
        source=printable(source),
    )
    return dataclasses.replace(dataset, digest=_content_digest(dataset))


def make_streamed(
    images: tuple[StreamedImages, StreamedImages],
    labels: tuple[np.ndarray, np.ndarray],
    class_names: tuple[str, ...],
    *,
    content: str,
    source: str,
) -> Dataset:
    """Makes a `Dataset` of images on disk.

    Args:
        images: training and test images.
        labels: integers from 0 to len(class_names) - 1.
        class_names: of the labels.
        content: changes with the files' content.
        source: see `Dataset`.

    Raises:
        UserError: a label out of range.
    """
    for vector, split in zip(labels, ("train", "test"), strict=True):
        _check_labels(vector, min(len(class_names), MAX_CLASSES), f"{source}: {split} labels")
    header = [content, images[0].shape, images[1].shape, list(class_names)]
    return Dataset(
        images[0],
        labels[0].astype(np.int32),
        images[1],
        labels[1].astype(np.int32),
        class_names,
        digest=STREAMED + hashlib.sha256(json.dumps(header).encode()).hexdigest(),
        source=printable(source),
    )


def _check_lengths_and_sizes(
    images: list[np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    origin: str,
    fields: tuple[str, str, str, str],
) -> None:
    for array, vector, i in zip(images, labels, (0, 2), strict=True):
        if len(array) != len(vector):
            raise UserError(
                f"{origin}: {fields[i]} has {len(array)} images but {fields[i + 1]} has "
                f"{len(vector)} labels; each image needs one label",
                code="conflict",
                field=f"{origin}: {fields[i + 1]}",
            )
        if len(array) == 0:
            where = f"{origin}: {fields[i]}"
            raise UserError(f"{where} is empty; both splits need images", field=where)
    if images[0].shape[1:] != images[1].shape[1:]:
        sizes = [f"{array.shape[1]}x{array.shape[2]}" for array in images]
        raise UserError(
            f"{origin}: {fields[0]} are {sizes[0]} but {fields[2]} are {sizes[1]}; "
            "set config.image_size",
            code="conflict",
            field="config.image_size",
        )


def _label_vector(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{where} is {labels.dtype}; store the labels as integers from 0", field=where
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(
            f"{where} has shape {list(labels.shape)}; make it [N], one label per image", field=where
        )
    return labels


def _check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < num_classes:
            raise UserError(
                f"{where} has the label {label}; with {num_classes} classes the labels must be "
                f"0 to {num_classes - 1}",
                field=where,
            )
