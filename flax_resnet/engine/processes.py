"""What the processes of a run decide alike, from what each of them knows.

All of them run the same program, so a decision that depends on a clock, a signal or a disk must be
the same in all. One process decides alone, at no cost.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_resnet.process.signals import StopRequest

# Votes that may be under way: reading an older one holds up no device (engine/dispatch.py).
_UNDER_WAY = 2


class Processes:
    """All processes of JAX's runtime. Each calls the same methods in the same order.

    Attributes:
      alone: whether there is only one.
      is_main: whether this is process 0, which writes the run's files; True of a single one.
      seconds: agreed by `should_stop`.
    """

    def __init__(self) -> None:
        joined = jax.distributed.is_initialized()  # asked first: it starts no device
        self.alone = not joined or jax.process_count() == 1
        self.is_main = self.alone or jax.process_index() == 0
        self.seconds = 0.0
        self._votes: collections.deque[jax.Array] = collections.deque()
        if not self.alone:
            mesh = Mesh(np.array(jax.devices()), ("device",), axis_types=(AxisType.Auto,))
            self._by_device = NamedSharding(mesh, PartitionSpec("device"))
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._largest = jax.jit(lambda votes: jnp.max(votes, axis=0), out_shardings=everywhere)

    def _vote(self, value: int, other: int = 0) -> jax.Array:
        """The largest of each of the two over the processes; int32, still under way."""
        mine = np.tile(np.array([value, other], np.int32), (jax.local_device_count(), 1))
        return self._largest(jax.make_array_from_process_local_data(self._by_device, mine))

    def largest(self, value: int) -> int:
        """The largest of the processes' values; waits for all of them."""
        return value if self.alone else int(np.asarray(self._vote(value))[0])

    def of_main(self, find: Callable[[], int]) -> int:
        """What process 0 finds, 0 or more."""
        return self.largest(find() if self.is_main else 0)

    def all_have(self, value: int) -> bool:
        """Whether `value` is the same in all processes."""
        return self.largest(value) == -self.largest(-value)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Process 0 goes through the block before the others enter it."""
        if not self.is_main:
            self.largest(0)
        yield
        if self.is_main:
            self.largest(0)

    def should_stop(self, stop: StopRequest, seconds: float = 0.0) -> bool:
        """Whether to stop here: in all processes at the same call, soon after one was asked to.

        To be called once a dispatch. It never waits for the newest dispatch.

        Args:
          stop: of this process; set where another one was asked.
          seconds: a time by this process's clock; `self.seconds` becomes one that all agree on.
        """
        if self.alone:
            self.seconds = seconds
            return bool(stop)
        self._votes.append(self._vote(stop.signum or 0, int(seconds)))
        if len(self._votes) <= _UNDER_WAY:
            return False
        signum, self.seconds = (int(v) for v in np.asarray(self._votes.popleft()))
        if signum:
            stop.request(signum)
        return bool(signum)

    def forget_seconds(self) -> None:
        """Starts the agreed time over: what is under way is of before."""
        self._votes.clear()
        self.seconds = 0.0
