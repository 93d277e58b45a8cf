"""The same bits in every run on a GPU."""

import os

FLAG = "--xla_gpu_deterministic_ops=true"


def use_deterministic_kernels() -> None:
    """Has XLA take only GPU kernels whose results do not depend on the order of threads.

    To be called before JAX is first used. A CPU needs nothing of this.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}".strip()
