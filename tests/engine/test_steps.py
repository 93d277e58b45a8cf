"""One step: its clock, its key, its soft labels, and what it refuses to keep."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from flax_resnet.engine import steps
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import MetricSums, TrainState, init_state
from flax_resnet.engine.steps import make_train_step, num_parts
from flax_resnet.optim.optimizers import OPTIMIZERS
from flax_resnet.optim.schedules import make_schedule

SHAPE = (2, 2, 3)
IMAGES = np.random.default_rng(0).integers(0, 255, (8, *SHAPE), np.uint8)
BAD = np.full_like(IMAGES, 255)
LABELS = np.arange(8, dtype=np.int32) % 4


def normalize(images: Any) -> Any:
    """White images are what no real one is: infinite."""
    return jnp.where(images == 255, jnp.inf, images / 255.0)


class Linear(nn.Module):
    """A linear layer on the pixels; it keeps a random number where it `draws` one."""

    draws: bool = False
    scale: float = 1.0
    axis_name: str | None = None  # as of a network with BatchNorm

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        drawn = self.variable("batch_stats", "drawn", jnp.zeros, ())
        if train and self.draws:
            drawn.value = jax.random.uniform(self.make_rng("dropout"))
        return self.scale * nn.Dense(4)(images.reshape(len(images), -1))


def start(model: nn.Module, optimizer: Any) -> TrainState:
    return init_state(model, optimizer, SHAPE, seed=0)


def take(
    model: nn.Module, optimizer: Any = None, labels: np.ndarray = LABELS, **options: Any
) -> tuple[TrainState, TrainState, MetricSums]:
    """A state before and after a step on IMAGES at learning rate 0.1, and the step's sums."""
    optimizer = optimizer or OPTIMIZERS["sgd"]()
    step = jax.jit(
        make_train_step(model, optimizer, optax.constant_schedule(0.1), normalize, **options)
    )
    state = start(model, optimizer)
    return state, *step(state, MetricSums.zeros(), (IMAGES, labels))


def test_skipped_steps_leave_the_rate_on_the_schedule():
    schedule = make_schedule("cosine", learning_rate=0.5, total_steps=5)
    ones: Any = optax.stateless(lambda updates, _: jax.tree.map(jnp.ones_like, updates))
    step = jax.jit(make_train_step(Linear(), ones, schedule, normalize, on_nan="skip"))
    state, sums = start(Linear(), ones), MetricSums.zeros()
    rates = []  # an update of 1, scaled
    for images in (IMAGES, BAD, IMAGES, BAD, IMAGES, IMAGES):
        before = state.params["Dense_0"]["bias"][0]
        state, sums = step(state, sums, (images, LABELS))
        rates.append(float(state.params["Dense_0"]["bias"][0] - before))
    logged = [float(schedule(number)) for number in range(6)]
    expected = [rate if number not in (1, 3) else 0 for number, rate in enumerate(logged)]
    assert rates == pytest.approx(expected, abs=1e-6)
    assert int(sums.non_finite) == 2 and logged[-1] == 0  # the cosine's end


def test_one_hot_labels_take_the_step_of_hard_ones():
    _, hard, hard_sums = take(Linear())
    _, soft, soft_sums = take(Linear(), labels=np.eye(4, dtype=np.float32)[LABELS])
    for a, b in zip(jax.tree.leaves(hard.params), jax.tree.leaves(soft.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert float(soft_sums.loss) == pytest.approx(float(hard_sums.loss))
    assert soft_sums.correct == hard_sums.correct and int(soft_sums.images) == 8


def drawn(step: int = 0, seed: int = 0, parallel: DataParallel | None = None) -> float:
    """The number that the network draws in a step."""
    model, optimizer = Linear(draws=True), OPTIMIZERS["sgd"]()
    train_step = make_train_step(
        model, optimizer, optax.constant_schedule(0.1), normalize, seed=seed
    )
    parallel = parallel or DataParallel(devices=jax.devices()[:1])
    state = dataclasses.replace(start(model, optimizer), step=jnp.asarray(step, jnp.int32))
    state, sums = parallel.replicate((state, MetricSums.zeros()))
    chunk = parallel.place(IMAGES[None], LABELS[None])
    return float(parallel.compile_train(train_step)(state, sums, chunk)[0].batch_stats["drawn"])


def test_the_key_is_a_function_of_seed_step_and_device():
    assert drawn() == drawn()
    two = jax.devices()[:2]
    others = [
        drawn(step=1),
        drawn(seed=1),
        drawn(parallel=DataParallel("pmap", devices=two)),  # the mean of two devices' draws
    ]
    assert len({drawn(), *others}) == 4
    per_device = drawn(parallel=DataParallel("jit", "device", two))
    assert per_device == pytest.approx(others[-1])


@pytest.mark.parametrize("draws", [False, True])
def test_a_key_that_is_not_used_is_not_computed(draws):
    model, optimizer = Linear(draws), OPTIMIZERS["sgd"]()
    state = start(model, optimizer)

    def program(seed: int) -> str | None:
        step = make_train_step(model, optimizer, optax.constant_schedule(0.1), normalize, seed=seed)
        lowered = jax.jit(step).lower(state, MetricSums.zeros(), (IMAGES, LABELS))
        return lowered.compile().as_text()

    assert (program(0) == program(12345)) is not draws


def test_a_step_that_leaves_infinite_parameters_is_not_kept():
    def overflow(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda u: jnp.full_like(u, jnp.inf), updates)

    before, after, sums = take(Linear(), optax.stateless(overflow), on_nan="stop")
    assert int(sums.non_finite) == 1 and int(after.step) == 0
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_step_that_leaves_adam_dividing_by_infinity_is_not_kept():
    before, after, sums = take(Linear(scale=1e25), OPTIMIZERS["adam"](), on_nan="skip")
    assert int(sums.non_finite) == 1 and int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, before.opt_state, after.opt_state)


def test_smoothed_labels_are_in_the_loss_and_not_in_the_accuracy():
    hparams = {"label_smoothing": 0.3}
    before, _, sums = take(Linear(), hparams=hparams, num_classes=4)
    logits: Any = Linear().apply(dict(before.variables), normalize(IMAGES))
    soft = optax.smooth_labels(jnp.eye(4)[LABELS], 0.3)
    np.testing.assert_allclose(sums.loss, optax.softmax_cross_entropy(logits, soft).mean(), 1e-6)
    assert int(sums.correct) == (logits.argmax(-1) == LABELS).sum()


def test_mixed_images_and_labels_are_trained_on():
    def swap(_: Any, images: jax.Array, labels: jax.Array) -> Any:
        return images[::-1], labels[::-1]

    _, plain, _ = take(Linear())
    _, mixed, _ = take(Linear(), mix=swap, num_classes=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), plain.params, mixed.params
    )


@pytest.mark.parametrize(
    ("micro_batches", "images", "parts"),
    [(1, 128, 1), (8, 256, 8), (3, 128, 4), (8, 143, 11), (8, 1167, 3), (4, 127, 1), (10**9, 4, 4)],
)
def test_the_number_of_parts(micro_batches: int, images: int, parts: int):
    assert num_parts(micro_batches, images) == parts


@pytest.mark.parametrize("parts", [2, 8, 12])
def test_a_batch_in_parts_is_the_whole_batch_where_there_is_no_batch_norm(parts: int):
    _, whole, whole_sums = take(Linear())
    _, in_parts, sums = take(Linear(), micro_batches=parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), whole.params, in_parts.params
    )
    np.testing.assert_allclose(sums.loss, whole_sums.loss, 1e-6)
    assert int(sums.correct) == int(whole_sums.correct)


def test_sharpness_aware_steps_take_the_gradient_from_up_the_gradient():
    start, plain, plain_sums = take(Linear())
    _, new, sums = take(Linear(), hparams={"sam_rho": 0.5})
    gradient = jax.tree.map(lambda a, b: 10 * (a - b), start.params, plain.params)
    norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)) ** 0.5
    up = jax.tree.map(lambda g: 0.5 / norm * g, gradient)
    at = dataclasses.replace(start, params=jax.tree.map(jnp.add, start.params, up))
    step = make_train_step(Linear(), OPTIMIZERS["sgd"](), optax.constant_schedule(0.1), normalize)
    moved, _ = jax.jit(step)(at, MetricSums.zeros(), (IMAGES, LABELS))
    expected = jax.tree.map(jnp.subtract, moved.params, up)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected)
    kernels = (state.params["Dense_0"]["kernel"] for state in (new, plain))
    assert not np.allclose(*kernels, atol=1e-3)
    assert float(sums.loss) == float(plain_sums.loss)


def test_averages_follow_the_steps():
    model, optimizer = Linear(), OPTIMIZERS["sgd"]()
    schedule, hparams = optax.constant_schedule(0.1), {"ema_decay": 0.9}
    step = jax.jit(make_train_step(model, optimizer, schedule, normalize, hparams=hparams))
    state, sums = init_state(model, optimizer, SHAPE, 0, averages=True), MetricSums.zeros()
    expected = state.variables["params"]
    for number in range(3):
        state, sums = step(state, sums, (IMAGES, LABELS))
        take_new = optax.incremental_update  # step_size * new + (1 - step_size) * old
        expected = take_new(state.params, expected, 1 - (1 + number) / (10 + number))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5), expected, state.averages["params"]
    )
    assert state.evaluated is state.averages


@pytest.mark.parametrize("statistics", [True, False])
def test_lookahead_is_optaxs_and_its_slow_weights_are_evaluated(statistics):
    model, optimizer = Linear(draws=True), OPTIMIZERS["momentum"]()
    step = jax.jit(
        make_train_step(
            model, optimizer, optax.constant_schedule(0.1), normalize,
            slow_steps=lambda step: (step % 3 == 0, 0.25), slow_statistics=statistics,
        )
    )  # fmt: skip
    state, sums = init_state(model, optimizer, SHAPE, 0, averages=True), MetricSums.zeros()
    theirs = optax.lookahead(optax.sgd(0.1, 0.9), sync_period=3, slow_step_size=0.75)
    params = optax.LookaheadParams.init_synced(state.params)
    opt_state = theirs.init(params)

    def loss(params: Any) -> jax.Array:
        logits = Linear().apply({"params": params, "batch_stats": {"drawn": 0.0}}, IMAGES / 255.0)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    slow_drawn = 0.0
    for number in range(1, 8):
        state, sums = step(state, sums, (IMAGES, LABELS))
        updates, opt_state = theirs.update(jax.grad(loss)(params.fast), opt_state, params)
        params = optax.apply_updates(params, updates)
        for ours, other in ((state.params, params.fast), (state.evaluated["params"], params.slow)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), ours, other)
        drawn, kept = state.batch_stats["drawn"], state.evaluated["batch_stats"]["drawn"]
        if not statistics:
            assert drawn == kept
        elif number % 3 == 0:
            key = jax.random.fold_in(jax.random.key(0), number - 1)
            _, changed = Linear(draws=True).apply(
                dict(state.variables), IMAGES, True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            fresh: Any = changed["batch_stats"]["drawn"]
            slow_drawn = 0.25 * slow_drawn + 0.75 * float(fresh)
            assert drawn == kept == pytest.approx(slow_drawn, rel=1e-5)


def test_averages_are_evaluated_where_there_are_any():
    state = start(Linear(), OPTIMIZERS["sgd"]())
    assert state.evaluated == state.variables and not jax.tree.leaves(state.averages)
    averages = jax.tree.map(lambda leaf: leaf / 2, dict(state.variables))
    state = dataclasses.replace(state, averages=averages)
    assert state.evaluated is averages and state.variables["params"] is state.params


def test_a_program_grows_with_its_parameters_not_with_their_square():
    def instructions(leaves: int) -> int:
        def update(old: list[jax.Array], gradients: list[jax.Array]) -> list[jax.Array]:
            new = [a - 0.1 * b for a, b in zip(old, gradients, strict=True)]
            finite = steps._all_finite(new)
            return [jnp.where(finite, a, b) for a, b in zip(new, old, strict=True)]

        arrays = [jnp.zeros(n) for n in range(3, leaves + 3)]
        text = jax.jit(update).lower(arrays, arrays).compile().as_text()
        assert text is not None
        return text.count(" = ")

    assert instructions(120) < 6 * instructions(30)
