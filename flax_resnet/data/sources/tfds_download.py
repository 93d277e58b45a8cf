"""Imports TensorFlow Datasets safely, and prepares a set that is not on disk yet."""

import difflib
import logging
import os
import threading
import types
import urllib.error
import urllib.request
from pathlib import Path

from flax_resnet.process.errors import UserError, reason

logger = logging.getLogger(__name__)

_PROBE_URL = "https://storage.googleapis.com/tfds-data/"
_PROBE_SECONDS = 6.0

_PACKAGES = {  # where the pip package is not named as the module
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow": "tensorflow-cpu",
}


def import_tfds() -> types.ModuleType:
    """Imports tensorflow_datasets, which by itself does not import TensorFlow.

    Raises:
        UserError: it, or a package it needs, is not installed; the pip package is named.
    """
    # TensorFlow reads these when it is imported. Its log of oneDNN's rounding is of no use here:
    # it only decodes images.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import importlib_resources  # noqa: F401  tfds needs it and 4.9.10 does not declare it
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_package(error) from error
    return tfds


def import_tensorflow() -> types.ModuleType:
    """Imports TensorFlow and takes every GPU and TPU away from it.

    It would reserve nearly all memory of a GPU that JAX is to use.

    Raises:
        UserError: it is not installed.
    """
    import_tfds()
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing_package(error) from error
    for kind in ("GPU", "TPU"):
        try:
            tf.config.set_visible_devices([], kind)
        except RuntimeError:  # too late: the program around us has used TensorFlow before
            pass
    return tf


def missing_package(error: ImportError) -> UserError:
    """The error to raise for a package that is not installed."""
    module = (error.name or "tensorflow-datasets").split(".")[0]
    package = _PACKAGES.get(module, module)
    return UserError(
        f"this dataset needs the package {package} ({reason(error)}); pip install {package}",
        code="unavailable",
        field="config.dataset",
    )


def has_network(url: str = _PROBE_URL, seconds: float = _PROBE_SECONDS) -> bool:
    """Whether an HTTP server answers, anything at all, in that time; respects HTTPS_PROXY."""
    answered = threading.Event()
    finished = threading.Event()

    def probe() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds - 1).close()
            answered.set()
        except urllib.error.HTTPError:  # an answer, though "forbidden" or "not found"
            answered.set()
        except (OSError, ValueError):  # ValueError: a proxy variable that is no address
            pass
        finally:
            finished.set()

    # A thread, because the timeout does not bound the look-up of the name.
    threading.Thread(target=probe, daemon=True).start()
    finished.wait(seconds)
    return answered.is_set()


def download_tfds(name: str, data_dir: Path) -> None:
    """Downloads and prepares a tfds set in `data_dir`.

    Args:
        name: as `tfds.load` accepts it.
        data_dir: tfds's folder of prepared sets.

    Raises:
        UserError: no such set, no network or a failed download; it lists the alternatives.
    """
    _check_name(name)
    absent = f"dataset {name!r} is not prepared in {data_dir}"
    if not has_network():  # tfds itself would try for minutes
        raise _unavailable(name, f"{absent} and there is no network to download it")
    import_tensorflow()
    tfds = import_tfds()
    logger.warning("%s: downloading it", absent)
    try:
        # try_download_gcs: tfds's own prepared copy first, where this tfds offers it (the
        # try_gcs of tfds.load excludes a data_dir, so it would download every time).
        config = tfds.download.DownloadConfig(try_download_gcs=True)
        builder = tfds.builder(name, data_dir=str(data_dir))
        builder.download_and_prepare(download_config=config)
    # tfds raises whatever its many dataset scripts and network libraries raise.
    except Exception as error:
        raise _unavailable(name, f"{absent} and preparing it failed ({reason(error)})") from error


def _check_name(name: str) -> None:
    base = name.split("/")[0].split(":")[0]
    known = import_tfds().list_builders(with_community_datasets=False)  # asks no server
    if base in known:
        return
    close = difflib.get_close_matches(base, [*known, "digits"], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "tfds's catalog lists the names"
    here = "has no folder train/" if Path(name).exists() else "does not exist"
    raise UserError(
        f"config.dataset: no tfds dataset is called {base!r}: {hint}; as a folder with "
        f"train/CLASS/ and test/CLASS/, {name} {here}",
        code="unknown",
        field="config.dataset",
    )


def _unavailable(name: str, fault: str) -> UserError:
    """The error with the ways to get images without a download, one per line."""
    ways = [
        f"--config.data_dir=DIR, where tfds has prepared {name} elsewhere",
        "--config.dataset=digits, which needs no download",
        "--config.dataset=FILE.npz with x_train, y_train, x_test and y_test",
        "--config.dataset=./FOLDER with train/CLASS/*.png and test/CLASS/*.png",
    ]
    if name.split(":")[0] == "cifar10":
        ways.insert(0, "--config.archive=.../cifar-10-binary.tar.gz, the official archive")
    lines = "\n".join(f"  {way}" for way in ways)
    message = f"{fault}; use one of:\n{lines}"
    return UserError(message, code="unavailable", field="config.dataset")
