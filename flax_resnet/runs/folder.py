"""The folder of a run: where its files are, who writes to it, whether it may go on."""

import dataclasses
import fcntl
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config import load as configs
from flax_resnet.config.compat import check_may_resume
from flax_resnet.config.fields import IMAGE_SIDE
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import write_text


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a run must remember of its data.

    Attributes:
      class_names: names of the labels, in their order.
      image_shape: (height, width, channels).
      train_images, test_images, val_images: numbers of images.
      digest: of the content of the whole data set.
      source: where it came from, for people.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int
    val_images: int
    digest: str
    source: str


class RunFolder:
    """Paths of a run, and its config and data information on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.data_file = self.path / "dataset.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.summary_file = self.path / "summary.txt"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"

    def lock(self) -> None:
        """Makes the folder and takes it for this process, until it ends.

        Raises:
          UserError: another process trains there, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Never closed: the system drops the lock when the process dies, however it dies.
            self._lock_file = open(self.path / ".lock", "w")
        except OSError as error:
            raise UserError(f"workdir {self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another process is training in {self.path}: wait for it, stop it, "
                "or give another --workdir"
            ) from error

        for leftover in self.path.glob(".*.part"):  # of a killed process (atomic_files.py)
            leftover.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Gives the folder back."""
        self._lock_file.close()

    def claim(self, config: ConfigDict) -> None:
        """Writes the config, or checks that the one there allows to go on.

        Raises:
          UserError: naming the field that differs, its old and new value.
        """
        if self.config_file.exists():
            check_may_resume(str(self.path), self.config(), config, "--workdir")
        elif self.checkpoints.exists():
            raise UserError(
                f"{self.path} has checkpoints but no config.json: give another --workdir"
            )
        write_text(self.config_file, configs.to_json(config))

    def claim_data(self, info: DataInfo) -> None:
        """Writes what the run remembers of its data, or checks that the data are the same.

        Raises:
          UserError: the data changed since the run began.
        """
        if self.data_file.exists() and self.data_info().digest != info.digest:
            raise UserError(
                f"the images of {info.source} are not those that {self.path} was begun with: "
                "bring them back, or give another --workdir"
            )
        write_text(self.data_file, json.dumps(dataclasses.asdict(info), indent=2) + "\n")

    def config(self) -> ConfigDict:
        """The resolved config of the run.

        Raises:
          UserError: there is none, or it is damaged.
        """
        text = self._read(self.config_file)
        try:
            return configs.from_json(text)
        except UserError as error:
            raise UserError(f"{self.config_file}: {error}") from error

    def data_info(self) -> DataInfo:
        """What the run remembers of its data.

        Raises:
          UserError: there is none, or it is damaged.
        """
        text = self._read(self.data_file)
        try:
            values: dict[str, Any] = json.loads(text)
            values["class_names"] = tuple(values["class_names"])
            values["image_shape"] = tuple(values["image_shape"])
            info = DataInfo(**values)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{self.data_file} is damaged: {reason(error)}") from error
        names, shape = info.class_names, info.image_shape
        if not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.data_file} is damaged: class_names must be a list of names")
        if len(shape) != 3 or shape[2] != 3 or not all(IMAGE_SIDE(side) for side in shape):
            raise UserError(f"{self.data_file} is damaged: image_shape must be [height, width, 3]")
        return info

    def _read(self, path: Path) -> str:
        try:
            return path.read_text()
        except FileNotFoundError as error:
            raise UserError(
                f"{self.path} is not the folder of a run: it has no {path.name}"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {reason(error)}") from error
