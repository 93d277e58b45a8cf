"""One of several processes that train and evaluate a small network; process 0 writes the result.

The same function in one process gives what to compare with.
"""

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flax_resnet.data.batches import TrainBatches
from flax_resnet.engine.evaluate import Evaluator
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.processes import Processes
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.engine.steps import make_eval_step, make_normalize, make_predict, make_train_step
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.optim.optimizers import OPTIMIZERS
from flax_resnet.process.distributed import joined, place_from
from flax_resnet.process.signals import StopRequest

SHAPE = (8, 8, 3)
EPOCHS = 5  # of 3 batches of 16 and one of 4, which 8 devices cannot share


def trained(devices: Any) -> dict[str, np.ndarray]:
    """State and evaluation after 20 steps in float64, by name."""
    model = ResNet(
        Design((1,), (8,), (3,), (1,), pool_size=8), 10, dtype=jnp.float64, param_dtype=jnp.float64
    )
    normalize = make_normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), jnp.float64)
    parallel = DataParallel(devices=devices)
    step = make_train_step(model, OPTIMIZERS["adam"](), optax.constant_schedule(1e-3), normalize)
    steps = parallel.compile_train(step)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (52, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, 10, 52).astype(np.int32)
    batches = TrainBatches(
        images, labels, batch_size=16, seed=0, transforms=(), drop_last=False, rows=parallel.rows
    )
    state = init_state(model, OPTIMIZERS["adam"](), SHAPE, seed=0)
    state, sums = parallel.replicate((state, MetricSums.zeros(jnp.float64)))
    for epoch in range(EPOCHS):
        for chunk in batches.epoch(epoch):
            placed = parallel.place(chunk.images, chunk.labels, batch_size=chunk.batch_size)
            state, sums = steps(state, sums, placed)
    evaluate = parallel.compile_eval(make_eval_step(make_predict(model, normalize)))
    evaluation = Evaluator(evaluate, parallel, images, labels, batch_size=52)(state.evaluated)
    assert evaluation is not None and evaluation.images == 52
    found = {"loss": np.array(evaluation.loss), "accuracy": np.array(evaluation.accuracy)}
    for path, leaf in jax.tree_util.tree_leaves_with_path((state, sums)):
        found[jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


def agreed() -> list[int]:
    """At which call all stop where one is asked to at its fourth, and what else they decide."""
    processes, stop, calls = Processes(), StopRequest(), 0
    while not processes.should_stop(stop, seconds=10 * jax.process_index()):
        calls += 1
        if calls == 4 and jax.process_index() == jax.process_count() - 1:
            stop.request(12)
    last = jax.process_count() - 1
    return [
        calls, stop.signum or 0, int(processes.seconds == 10 * last),
        processes.largest(jax.process_index()), processes.of_main(lambda: 7 - last),
        processes.all_have(3), processes.all_have(jax.process_index()),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--coordinator")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    args = parser.parse_args()
    with (
        joined(place_from(args.coordinator, args.num_processes, args.process_id)),
        jax.enable_x64(True),
    ):
        found = trained(jax.devices())
        arrays: dict[str, Any] = {"agreed": agreed(), **found}
        np.savez(f"{args.output}{jax.process_index()}.npz", **arrays)


if __name__ == "__main__":
    sys.exit(main())
