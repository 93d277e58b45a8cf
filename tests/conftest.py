"""Eight virtual devices on the CPU, checked shapes, a cache of the tests' own."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
# Runs wait for the disk at each save: in memory, where there is enough, the suite is faster.
if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 4 << 30:
    os.environ.setdefault("TMPDIR", "/dev/shm")
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share the cache of who starts them
    _cache = tempfile.TemporaryDirectory(prefix="flax_resnet-tests-")
    os.environ["FLAX_RESNET_CACHE"] = _cache.name
    # All runs share their compiled programs, those in processes of their own too.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(_cache.name, "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
# LLVM's -O0 compiles twice as fast; see as_users_compile.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# As the command line does: orbax logs every step of its work as a warning.
logging.getLogger("absl").setLevel(logging.ERROR)

from jaxtyping import install_import_hook  # noqa: E402

# Shapes and dtypes in annotations are checked here, at no cost to users.
install_import_hook("flax_resnet", "beartype.beartype")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from flax_resnet.config.load import load_config  # noqa: E402
from flax_resnet.process.signals import SIGNALS  # noqa: E402
from flax_resnet.training.loop import train_and_evaluate  # noqa: E402
from tests.logs import collected  # noqa: E402

ROOT = Path(__file__).parent.parent


def tiny_config(**changes: object) -> ConfigDict:
    """A network of two narrow layers on 224 digits: 7 steps of 32 an epoch."""
    overrides = {
        "design.stage_sizes": (1, 1),
        "design.stage_channels": (4, 8),
        "design.kernel_sizes": (3, 3),
        "design.shortcut_kernels": (1, 1),
        "train_images": 224,
        "test_images": 90,
        "batch_size": 32,
        "eval_batch_size": 40,
        "num_epochs": 2,
        "schedule": "constant",
    } | changes
    arguments = [f"--config.{field}={value}" for field, value in overrides.items()]
    return load_config(ROOT / "configs/quickstart.py", arguments)


@pytest.fixture(autouse=True, scope="module")
def as_users_compile(request: pytest.FixtureRequest) -> Iterator[None]:
    """With all optimizations, where numbers are tested; so do the stress programs' processes."""
    computes = request.path.parent.name in ("engine", "models", "optim")
    jax.config.update("jax_disable_most_optimizations", not computes)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def pythons_signals() -> Iterator[None]:
    """Signals act as in a fresh Python, not as under nohup or in one of pytest's workers."""
    fresh = {s: signal.SIG_DFL for s in SIGNALS} | {signal.SIGINT: signal.default_int_handler}
    before = {signum: signal.signal(signum, handler) for signum, handler in fresh.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What the package logs, line by line."""
    with collected() as lines:
        yield lines


@pytest.fixture(scope="session")
def one_device() -> list[Any]:
    """One of the virtual devices: a run on it has no collectives."""
    return jax.devices()[:1]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, one_device: list[Any]) -> Path:
    """The workdir of a finished tiny run; not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    outcome = train_and_evaluate(tiny_config(), workdir, devices=one_device)
    assert outcome.signum is None
    return workdir


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory: pytest.TempPathFactory, one_device: list[Any]) -> Path:
    """A run on images of 12 x 20 pixels, whose halves are dark and light, in both orders."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.integers(0, 60, (64, 12, 20, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 10 * label : 10 * label + 10] += 150
    np.savez(folder / "wide.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    config = tiny_config(
        dataset=folder / "wide.npz", batch_size=16, num_epochs=1, flip=False, crop_padding=0,
        **{"design.pool_size": 0},
    )  # fmt: skip
    train_and_evaluate(config, folder / "run", devices=one_device)
    return folder / "run"
