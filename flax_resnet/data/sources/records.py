"""Labeled images in the record files of a prepared tfds set, read by number without TensorFlow."""

import dataclasses
import hashlib
import logging
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from flax_resnet.process.errors import reason

logger = logging.getLogger(__name__)

# A TFRecord: its length (uint64), a checksum of that (4 bytes), the record, its checksum (4 bytes);
# tensorflow/core/lib/io/record_writer.h.
_HEADER, _FOOTER = struct.Struct("<QI"), 4


def _features(record: bytes) -> Any:
    """The features of a serialized tf.train.Example, by name."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of the records of a split once all of them have been read through.

    Attributes:
        place: of each record its file's number, its offset in the file and its length, in bytes.
        labels: of each record.
        digest: SHA-256 of the records one after another, in hexadecimal.
    """

    place: Int64[np.ndarray, "n 3"]
    labels: Int64[np.ndarray, " n"]
    digest: str


class TfRecords:
    """The images of TFRecord files, which are found by an index."""

    def __init__(self, files: Sequence[Path], index: Index) -> None:
        self._files = tuple(files)
        self._place = index.place

    def __len__(self) -> int:
        return len(self._place)

    def read(self, number: int) -> bytes:
        """The image file in a record."""
        file, offset, length = (int(value) for value in self._place[number])
        with self._files[file].open("rb", buffering=0) as opened:
            record = os.pread(opened.fileno(), length, offset)
        return _features(record)["image"].bytes_list.value[0]

    def name(self, number: int) -> str:
        """What an error calls it."""
        file, offset, _ = self._place[number]
        return f"{self._files[file]}, record at byte {offset}"

    @staticmethod
    def scan(files: Sequence[Path]) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        """The place of each record, and the record.

        Raises:
            ValueError: a file was cut short.
        """
        for number, path in enumerate(files):
            with path.open("rb") as file:
                while header := file.read(_HEADER.size):
                    length, offset = _HEADER.unpack(header)[0], file.tell()
                    if offset + length + _FOOTER > path.stat().st_size:
                        raise ValueError(f"{path} is cut short or corrupt at byte {offset}")
                    yield (number, offset, length), file.read(length)
                    file.seek(_FOOTER, os.SEEK_CUR)


class ArrayRecords:
    """The images of ArrayRecord files, which have an index of their own."""

    def __init__(self, files: Sequence[Path], index: Index) -> None:
        self._source = self._open(files)
        self._folder = files[0].parent

    def __len__(self) -> int:
        return len(self._source)

    def read(self, number: int) -> bytes:
        """The image file in a record."""
        return _features(self._source[int(number)])["image"].bytes_list.value[0]

    def name(self, number: int) -> str:
        """What an error calls it."""
        return f"{self._folder}, record {number}"

    @staticmethod
    def _open(files: Sequence[Path]) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([str(path) for path in files])

    @staticmethod
    def scan(files: Sequence[Path]) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        """As TfRecords.scan; the places are of no use."""
        source = ArrayRecords._open(files)
        for number in range(len(source)):
            yield (0, number, 0), source[number]


FORMATS = {"tfrecord": TfRecords, "array_record": ArrayRecords}


def open_records(
    files: Sequence[Path], file_format: str, num: int, cached: Path
) -> tuple[TfRecords | ArrayRecords, Index]:
    """The images of a split, and its index.

    The first time, all records are read through, for their labels and places.

    Args:
        files: of the split, in tfds's order.
        file_format: a key of FORMATS.
        num: how many records there should be.
        cached: the file that keeps the index.

    Raises:
        ValueError: the files are corrupt.
    """
    kind = FORMATS[file_format]
    index = _read_index(cached)
    if index is None:
        index = _make_index(kind.scan(files), cached.stem, num)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            unfinished = cached.with_suffix(f".{os.getpid()}.npz")
            np.savez(unfinished, place=index.place, labels=index.labels, digest=index.digest)
            unfinished.rename(cached)
        except OSError as error:
            logger.warning("continuing without keeping the index of records: %s", reason(error))
    if len(index.labels) != num:
        raise ValueError(f"{files[0].parent} has {len(index.labels)} records, {num} expected")
    return kind(files, index), index


def _make_index(scan: Iterator[tuple[tuple[int, int, int], bytes]], name: str, num: int) -> Index:
    digest, places, labels = hashlib.sha256(), [], []
    # disable=None: a bar only where stderr is a terminal.
    for place, record in tqdm(scan, name, num, unit="img", disable=None):
        digest.update(record)
        places.append(place)
        labels.append(_features(record)["label"].int64_list.value[0])
    return Index(np.array(places, np.int64), np.array(labels, np.int64), digest.hexdigest())


def _read_index(cached: Path) -> Index | None:
    """The index that was kept, unless it is not there or damaged (zip has checksums)."""
    try:
        with np.load(cached, allow_pickle=False) as kept:
            return Index(kept["place"], kept["labels"], str(kept["digest"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
