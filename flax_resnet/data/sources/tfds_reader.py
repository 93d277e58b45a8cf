"""Reads the images and labels of a prepared set, whatever its file format, through tfds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from flax_resnet.data.image_arrays import three_channels
from flax_resnet.data.image_files import resize_and_crop
from flax_resnet.data.sources.tfds_download import import_tensorflow, import_tfds
from flax_resnet.process.errors import UserError

_BATCH = 500  # images converted at a time: enough to amortize the step out of TensorFlow


class TfdsReader:
    """Reads one prepared set.

    Args of the constructor: what errors call the set; its name with its version; the folder of
    prepared sets; the side in pixels to which the images are resized (None: their own).
    """

    def __init__(self, name: str, full_name: str, data_dir: str, image_size: int | None) -> None:
        self._tfds = import_tfds()
        self._name = name
        self._full_name = full_name
        self._data_dir = data_dir
        self._image_size = image_size
        self.info: Any = self._tfds.builder(full_name, data_dir=data_dir).info

    def check_features(self) -> None:
        """Raises UserError unless there are uint8 images with one class each."""
        kinds = self._tfds.features
        for key, kind in (("image", kinds.Image), ("label", kinds.ClassLabel)):
            feature = self.info.features[key] if key in self.info.features else None
            if not isinstance(feature, kind):
                held = ", ".join(self.info.features)
                raise UserError(
                    f"dataset {self._name!r}: has no {key!r} of kind {kind.__name__} (it holds "
                    f"{held}); use an image-classification set",
                    field="config.dataset",
                )
        dtype = np.dtype(self.info.features["image"].np_dtype)
        if dtype != np.uint8:
            raise UserError(
                f"dataset {self._name!r}: has {dtype} images, not uint8; use another",
                field="config.dataset",
            )

    def splits(self) -> tuple[str, str]:
        """The names of the training and the test split."""
        held = [split for split, info in self.info.splits.items() if info.num_examples]
        # imagenet2012's test split has no labels (all are -1).
        wanted = ("validation",) if self.info.name == "imagenet2012" else ("test", "validation")
        test = next((split for split in wanted if split in held), None)
        if "train" not in held or test is None:
            raise UserError(
                f"dataset {self._name!r}: needs a split 'train' and a split 'test' or "
                f"'validation', but has {', '.join(held) or 'none'}; use another",
                code="missing",
                field="config.dataset",
            )
        return "train", test

    def image_shape(self, split: str) -> tuple[int, int]:
        """(height, width) of the images as they are kept."""
        if self._image_size is not None:
            return self._image_size, self._image_size
        height, width = self.info.features["image"].shape[:2]
        if height is None or width is None:  # the info leaves it open: all may still be alike
            first = next(iter(self._load(split).take(1).as_numpy_iterator()))
            height, width = first["image"].shape[:2]
        return height, width

    def _load(self, split: str) -> Any:
        """A tf.data.Dataset of {"image", "label"}, in an order that never changes."""
        from absl import logging

        decode = self._tfds.decode
        options = {"split": split, "data_dir": self._data_dir, "download": False}
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # PartialDecoding warns about tfds's own code
        try:
            file_format = self.info.file_format
            if file_format is None or file_format in type(file_format).with_tf_data():
                return self._tfds.load(
                    self._full_name,
                    shuffle_files=False,
                    # Nothing else is parsed.
                    decoders=decode.PartialDecoding({"image": True, "label": True}),
                    # One file after another; autocache would hold small sets in memory twice.
                    read_config=self._tfds.ReadConfig(
                        interleave_cycle_length=1, try_autocache=False
                    ),
                    **options,
                )
            # tfds.load refuses array_record files: tfds reads those by index only.
            source = self._tfds.data_source(
                self._full_name, decoders={"image": decode.SkipDecoding()}, **options
            )
            return self._decode(source)
        finally:
            logging.set_verbosity(verbosity)

    def _decode(self, source: Any) -> Any:
        """Decodes the compressed images of a source as `tfds.load` would, to the same pixels."""
        tf = import_tensorflow()
        image = self.info.features["image"]

        def batches() -> Iterator[dict[str, list[Any]]]:
            # A step from Python into tf.data costs more than a record: many records a step.
            for start in range(0, len(source), _BATCH):
                records = source.__getitems__(range(start, min(start + _BATCH, len(source))))
                yield {key: [record[key] for record in records] for key in ("image", "label")}

        signature = {
            "image": tf.TensorSpec((None,), tf.string),
            "label": tf.TensorSpec((None,), tf.int64),
        }
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()
        return dataset.map(
            lambda example: {**example, "image": image.decode_example(example["image"])},
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def read(self, split: str, num: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 [num, *shape, 3], and labels, int64 [num], of a split."""
        from tqdm import tqdm

        images = np.empty((num, *shape, 3), np.uint8)
        labels = np.empty(num, np.int64)
        done = 0
        # disable=None: a bar only where stderr is a terminal.
        with tqdm(total=num, desc=f"{self._name} {split}", unit="img", disable=None) as bar:
            for batch_images, batch_labels in self._batches(self._load(split), shape):
                stop = done + len(batch_labels)
                images[done:stop] = batch_images
                labels[done:stop] = batch_labels
                bar.update(stop - done)
                done = stop
        if done != num:
            raise ValueError(f"split {split} has {done} images, {num} expected")
        return images, labels

    def _batches(
        self, dataset: Any, shape: tuple[int, int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        where = f"dataset {self._name!r}: image"
        if self._image_size is None and self.info.features["image"].shape[:2] == shape:
            for batch in dataset.batch(_BATCH).prefetch(2).as_numpy_iterator():
                yield three_channels(batch["image"], where), batch["label"]
            return
        for example in dataset.as_numpy_iterator():
            image = three_channels(example["image"][None], where)[0]
            if self._image_size is not None:
                image = resize_and_crop(image, self._image_size, self._image_size)
            elif image.shape[:2] != shape:
                raise UserError(
                    f"dataset {self._name!r}: its images differ in size; set config.image_size",
                    code="conflict",
                    field="config.image_size",
                )
            yield image[None], example["label"][None]
