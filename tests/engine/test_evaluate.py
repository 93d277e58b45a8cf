import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet.engine.evaluate import Evaluator
from flax_resnet.engine.losses import cross_entropy
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.steps import make_eval_step, make_normalize, make_predict
from flax_resnet.models.resnet import Design, ResNet

SHAPE = (8, 8, 3)
MODEL = ResNet(Design((1,), (8,), (3,), (1,), pool_size=8), 10)
PREDICT = make_predict(MODEL, make_normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (101, *SHAPE), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 101).astype(np.int32)


@functools.cache
def variables() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))


@functools.cache
def expected_logits() -> jax.Array:
    return jax.jit(PREDICT)(variables(), jnp.asarray(IMAGES))


@functools.cache
def compiled(mode: Any, num_devices: int) -> Any:
    parallel = DataParallel(mode, devices=jax.devices()[:num_devices])
    return parallel, parallel.compile_eval(make_eval_step(PREDICT)), parallel.replicate(variables())


def make_evaluator(mode: str, num_devices: int, *batching: int) -> tuple[Evaluator, Any]:
    parallel, steps, placed = compiled(mode, num_devices)
    return Evaluator(steps, parallel, IMAGES, LABELS, *batching), placed


@pytest.mark.parametrize(("mode", "num_devices"), [("jit", 1), ("jit", 4), ("pmap", 4)])
@pytest.mark.parametrize(
    ("batch_size", "steps_per_dispatch"), [(7, 1), (50, 1), (1000, 1), (7, 3), (20, 6), (8, 100)]
)
def test_every_image_is_taken_once(mode, num_devices, batch_size, steps_per_dispatch):
    evaluator, placed = make_evaluator(mode, num_devices, batch_size, steps_per_dispatch)
    logits = expected_logits()
    for _ in range(2):  # the second time, images that stayed on the devices
        result = evaluator(placed)
        assert result is not None and result.images == 101
        losses = cross_entropy(logits, jnp.asarray(LABELS))
        assert result.loss == pytest.approx(float(losses.mean()), rel=1e-5)
        assert result.accuracy == pytest.approx(float((logits.argmax(-1) == LABELS).mean()))


def test_evaluation_stops_when_asked():
    evaluator, placed = make_evaluator("jit", 1, 7)
    assert evaluator(placed, lambda: True) is None


@pytest.mark.parametrize(("batch_size", "steps_per_dispatch"), [(7, 1), (7, 3), (20, 6)])
def test_compiling_starts_no_thread_and_serves_the_evaluation(batch_size, steps_per_dispatch):
    parallel, _, placed = compiled("jit", 1)
    steps = parallel.compile_eval(make_eval_step(PREDICT))
    evaluator = Evaluator(steps, parallel, IMAGES, LABELS, batch_size, steps_per_dispatch)
    before = threading.active_count()
    evaluator.compile(placed)
    assert threading.active_count() == before
    programs = dict(steps._compiled)
    evaluator(placed)
    assert programs and steps._compiled == programs
