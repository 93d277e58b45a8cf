"""Several processes that train one run: how they find each other, and how they end together.

JAX's own runtime connects them: process 0 serves it, and every process tells it that it is alive.
These settings are the whole process's, so the command line makes them; a program that calls
`jax.distributed.initialize` itself may train, too.
"""

import contextlib
import ctypes
import dataclasses
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

from flax_resnet.process.errors import UserError, reason

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 25  # without a sign of life, until a process counts as dead
SHUTDOWN_SECONDS = 60  # that processes which have finished wait for each other
ENDED = (
    "another process of this run ended, or cannot be reached: see its output, then start all of "
    "them again with the same command to resume"
)
# What the options are called, and the environment's names for them, which JAX gave.
_SOURCES = {
    "coordinator": ("--coordinator", "JAX_COORDINATOR_ADDRESS"),
    "num_processes": ("--num-processes", "JAX_NUM_PROCESSES"),
    "process_id": ("--process-id", "JAX_PROCESS_ID"),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """One process's place among those of a run.

    Attributes:
      coordinator: HOST:PORT at which process 0 serves and the others find it.
      num_processes: how many there are.
      process_id: this one's number, from 0.
    """

    coordinator: str
    num_processes: int
    process_id: int


def place_from(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Place | None:
    """The place that the options name, or else the environment; None: neither names any.

    Raises:
      UserError: only a part is given, or a value is not allowed.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    if all(value is None for value in given.values()):
        given = {name: os.environ.get(_SOURCES[name][1]) for name in given}
        if given["num_processes"] is None and given["process_id"] is None:
            return None  # a coordinator alone may be there for all of a cluster's jobs
    for name, value in given.items():
        if value is None:
            option, variable = _SOURCES[name]
            raise UserError(
                f"{option} (or {variable}) is missing: a process of several needs "
                f"{', '.join(option for option, _ in _SOURCES.values())}",
                code="missing",
                field=option,
            )
    host, _, port = str(given["coordinator"]).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator is {given['coordinator']!r}: it must be HOST:PORT, such as node0:1234",
            field="--coordinator",
        )
    try:
        place = Place(
            f"{host}:{port}", *(int(str(given[name])) for name in ("num_processes", "process_id"))
        )
    except ValueError as error:
        raise UserError(
            f"--num-processes and --process-id must be whole numbers ({reason(error)})",
            field="--process-id",
        ) from error
    if not 0 <= place.process_id < place.num_processes:
        raise UserError(
            f"--process-id is {place.process_id}: it must be from 0 to "
            f"{place.num_processes - 1}, one below --num-processes",
            field="--process-id",
        )
    return place


@contextlib.contextmanager
def joined(place: Place | None) -> Iterator[None]:
    """Within, this process is one of several; to be entered before JAX is first used.

    At the end the processes leave together. After an error nobody is waited for: the others miss
    this process's signs of life, and end.

    Args:
      place: None: what JAX finds out from SLURM, Open MPI, Kubernetes or Cloud TPU.

    Raises:
      UserError: the others cannot be reached, or one of them ended meanwhile.
    """
    import jax

    # Its handler of SIGTERM would take the place of the system's, and end nothing.
    jax.config.update("jax_enable_preemption_service", False)
    _end_in_one_line()
    arguments: dict[str, Any] = {} if place is None else dataclasses.asdict(place)
    if place is not None:
        arguments["coordinator_address"] = arguments.pop("coordinator")
        arguments["cluster_detection_method"] = "deactivate"  # of which devices are this process's
    try:
        jax.distributed.initialize(
            **arguments,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        where = place.coordinator if place else "config.distributed=auto"
        raise UserError(
            f"the processes did not come together at {where}: {reason(error)}",
            code="unavailable",
            field="--coordinator" if place else "config.distributed",
        ) from error
    logger.info("process %d of %d", jax.process_index(), jax.process_count())
    try:
        yield
    except (jax.errors.JaxRuntimeError, UserError) as error:
        # Orbax meets it, too, where it writes a checkpoint.
        cause = error.__cause__ if isinstance(error, UserError) else error
        if not _is_lost_connection(str(cause)):
            raise
        raise UserError(ENDED, code="unavailable") from error
    jax.distributed.shutdown()


def must_not_wait() -> bool:
    """Whether a program that ends now has others that it could wait for, in vain."""
    import sys

    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _is_lost_connection(text: str) -> bool:
    # By their texts: these errors have no classes of their own.
    words = ("Gloo", "NCCL", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "coordination")
    return any(word in text for word in words)


def _end_in_one_line() -> None:
    """Has the process end with ENDED where JAX's runtime would abort it with a C++ stack trace.

    It does so where it hears no more of another process; Python cannot be asked in its place, as
    the callback that it offers fails (jaxlib 0.10 to 0.12: std::bad_cast).
    """
    from jaxlib import utils  # pyright: ignore[reportAttributeAccessIssue]

    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # the user wants to see C++'s own words
        return
    utils.absl_set_min_log_level(4)  # above FATAL, the highest
    c = ctypes.CDLL(None)
    c.signal(signal.SIGABRT, _ABORTED)
    with contextlib.suppress(OSError, AttributeError):  # another C++ library than GNU's
        # A C++ exception that nobody catches is announced, in lines of its own, before the abort.
        gnu = ctypes.CDLL("libstdc++.so.6")
        gnu._ZSt13set_terminatePFvvE(ctypes.cast(c.abort, ctypes.c_void_p))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _ABORTED(_: int) -> None:  # noqa: N802
    os.write(2, f"error: {ENDED} (TF_CPP_MIN_LOG_LEVEL=0 shows more)\n".encode())
    os._exit(2)
