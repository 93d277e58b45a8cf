"""The folder of a run: where its files are, who writes to it, whether the run may resume."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from flax_resnet.config import load as configs
from flax_resnet.config.compat import check_may_resume
from flax_resnet.config.conv_choice import Choice, parse_choice
from flax_resnet.config.fields import IMAGE_SIDE
from flax_resnet.data.names import check_name
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import open_regular, read_text, write_text

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a run must remember of its data.

    Attributes:
      class_names: names of the labels, in their order.
      image_shape: (height, width, channels).
      train_images: their number, without those held out.
      test_images: their number.
      val_images: number of the images held out.
      digest: of the content of the whole data set; empty: not known, for imported weights.
      source: where it came from, for people.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int
    val_images: int
    digest: str
    source: str


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What decides a run's bits besides its config and its data.

    Attributes:
      conv: what computes the convolutions, as config.conv='auto' chose it.
      platform: of the devices: cpu, gpu, tpu.
      devices: how many shared a batch.
      processes: how many the devices belonged to.
      together: seeds of the runs that were one program, in their order; empty: this run alone.
    """

    conv: Choice
    platform: str
    devices: int
    processes: int = 1
    together: tuple[int, ...] = ()


class RunFolder:
    """Paths of a run, and what it remembers of its config, data and arithmetic.

    Attributes:
      writes: whether this process writes there; of several, one does.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        self.config_file = self.path / "config.json"
        self.data_file = self.path / "dataset.json"
        self.arithmetic_file = self.path / "arithmetic.json"
        self.imported_file = self.path / "imported.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.summary_file = self.path / "summary.txt"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self._lock_file = self.path / ".lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and reserves it for this process, if it writes there.

        Raises:
          UserError: another process is training there, or the folder cannot be written.
        """
        check_name(str(self.path), "--workdir", "--workdir")
        if not self.writes:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # The system drops the lock when the process dies, however it dies.
            file = open_regular(self._lock_file, "w")
        except OSError as error:
            raise UserError(
                f"workdir {self.path} cannot be written: {error.strerror}",
                code="unwritable",
                field=str(self.path),
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is training in {self.path}: wait for it, stop it, "
                    "or choose another --workdir",
                    code="busy",
                    field=str(self.path),
                ) from error
            except OSError as error:  # some network file systems have no locks
                raise UserError(
                    f"workdir {self.path} cannot be locked ({error.strerror}): choose one on "
                    "another disk",
                    code="unwritable",
                    field=str(self.path),
                ) from error
            for leftover in self.path.glob(".*.part"):  # of a killed process (process/files.py)
                leftover.unlink(missing_ok=True)
            self._held = os.fstat(file.fileno())
            yield

    def check_held(self) -> None:
        """Checks that the folder is still the one that this process reserved.

        Raises:
          UserError: it was deleted or replaced; another run may have begun in its place.
        """
        if not self.writes:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self._lock_file), self._held):
                return
        raise UserError(
            f"{self.path} was deleted or replaced while this run was training in it: stopped, "
            "and nothing more is written there",
            code="conflict",
            field=str(self.path),
        )

    def check_resumable(self, config: ConfigDict) -> None:
        """Checks that a run which has checkpoints may resume under `config`.

        Raises:
          UserError: naming the field that differs with its old and new value; or the run's
            weights were imported.
        """
        if self.imported_file.exists():
            raise UserError(
                f"{self.path} holds imported weights: train from them in another folder "
                f"(--config.init_from={self.path} --workdir OTHER)",
                code="conflict",
                field="--workdir",
            )
        if not self.config_file.exists():
            raise UserError(
                f"{self.path} has checkpoints but no config.json: choose another --workdir",
                code="missing",
                field=str(self.config_file),
            )
        check_may_resume(str(self.path), self.config(), config, "--workdir")

    def check_arithmetic(self) -> None:
        """Checks that this version computes as the run's earlier steps were computed.

        Raises:
          UserError: flax_resnet 0.1 began it, whose BatchNorm rounded otherwise.
        """
        if not self.arithmetic_file.exists():
            raise UserError(
                f"{self.path} was started by flax_resnet 0.1, whose BatchNorm rounded differently: "
                "finish it with that version, or start a new run from its weights "
                f"(--config.init_from={self.path} --workdir OTHER)",
                code="conflict",
                field=str(self.path),
            )

    def claim(self, config: ConfigDict, data: DataInfo, arithmetic: Arithmetic) -> None:
        """Records what the run is, once all of it has loaded and been checked."""
        if not self.writes:
            return
        write_text(self.config_file, configs.to_json(config))
        for path, info in ((self.data_file, data), (self.arithmetic_file, arithmetic)):
            write_text(path, json.dumps(dataclasses.asdict(info), indent=2) + "\n")

    def claim_imported(self, config: ConfigDict, data: DataInfo, origin: dict[str, str]) -> None:
        """Records what imported weights are, and what file they come from."""
        write_text(self.data_file, json.dumps(dataclasses.asdict(data), indent=2) + "\n")
        write_text(self.imported_file, json.dumps(origin, indent=2) + "\n")
        write_text(self.config_file, configs.to_json(config))

    def check_data(self, info: DataInfo) -> None:
        """Checks that the images are those that the run was started with.

        Raises:
          UserError: they changed, or the record of them is missing.
        """
        if self.data_info().digest != info.digest:
            raise UserError(
                f"the images of {info.source} are not those that {self.path} was started with: "
                "restore them, or choose another --workdir",
                code="conflict",
                field="config.dataset",
            )

    def config(self) -> ConfigDict:
        """The resolved config of the run.

        Raises:
          UserError: it is missing or corrupt.
        """
        text = self._read(self.config_file)
        try:
            return configs.from_json(text)
        except UserError as error:
            raise UserError(
                f"{self.config_file}: {error}", code=error.code, field=str(self.config_file)
            ) from error

    def data_info(self) -> DataInfo:
        """What the run remembers of its data.

        Raises:
          UserError: it is missing or corrupt.
        """

        def info(values: dict[str, Any]) -> DataInfo:
            names, shape = tuple(values["class_names"]), tuple(values["image_shape"])
            if not names or not all(isinstance(name, str) for name in names):
                raise ValueError("class_names must be a list of names")
            if len(shape) != 3 or shape[2] != 3 or not all(map(IMAGE_SIDE, shape)):
                raise ValueError("image_shape must be [height, width, 3]")
            return DataInfo(**values | {"class_names": names, "image_shape": shape})

        return self._parsed(self.data_file, info)

    def arithmetic(self) -> Arithmetic:
        """What the run remembers of its arithmetic.

        Raises:
          UserError: it is missing or corrupt.
        """

        def info(values: dict[str, Any]) -> Arithmetic:
            values["together"] = tuple(values["together"]) if "together" in values else ()
            values["conv"] = parse_choice(values["conv"])
            found = Arithmetic(**values)
            numbers = found.devices, found.processes, *found.together
            if not all(isinstance(n, int) for n in numbers):
                raise ValueError("devices, processes and together must be numbers")
            return found

        return self._parsed(self.arithmetic_file, info)

    def _parsed(self, path: Path, parse: Callable[[dict[str, Any]], T]) -> T:
        text = self._read(path)
        try:
            return parse(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{path} is corrupt: {reason(error)}", code="corrupt", field=str(path)
            ) from error

    def _read(self, path: Path) -> str:
        try:
            return read_text(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            what = "a file" if self.path.is_file() else "not the folder of a run"
            raise UserError(
                f"{self.path} is {what}: a run's folder with {path.name} is needed",
                code="missing",
                field=str(path),
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} cannot be read: {reason(error)}", code="unreadable", field=str(path)
            ) from error
