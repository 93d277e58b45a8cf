"""The training, prediction and evaluation steps, as pure functions.

mesh.py compiles them. Under a mapped axis (shard_map, pmap), which `axis_name` names, each device
holds an equal share of the batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from flax_resnet.engine.losses import Labels, cross_entropy, is_correct
from flax_resnet.engine.mixing import Mix, soften
from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.optim.averages import SlowSteps, lookahead, moving_average
from flax_resnet.optim.groups import hold

Images = UInt8[Array, "batch height width channels"]
Normalize = Callable[[UInt8[Array, "*shape channels"]], Float[Array, "*shape channels"]]
Predict = Callable[[Any, Images], Float[Array, "batch classes"]]
AxisName = str | tuple[str, ...] | None
# ((mean loss, (logits, new running statistics)), gradients)
LossAndGrads = tuple[tuple[jax.Array, tuple[jax.Array, Any]], Any]
EvalStep = Callable[..., tuple[MetricSums, jax.Array]]


def make_normalize(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: Any = jnp.float32
) -> Normalize:
    """A function that scales uint8 images to [0, 1], subtracts `mean` and divides by `std`."""

    def normalize(images: UInt8[Array, "*shape channels"]) -> Float[Array, "*shape channels"]:
        return (images.astype(dtype) / 255 - jnp.asarray(mean, dtype)) / jnp.asarray(std, dtype)

    return normalize


@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit hashes it
class TrainStep:
    """A pure function (state, sums, (images, labels)) -> (state, sums).

    Attributes:
      function: takes `hparams` as a fourth argument.
      hparams: hyperparameters that the compiled step takes as arguments: another value needs no
        other program.
    """

    function: Callable[..., tuple[TrainState, MetricSums]]
    hparams: Mapping[str, float]

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[TrainState, MetricSums]:
        """The step with its hyperparameters as constants."""
        return self.function(*args, self.hparams, **kwargs)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    normalize: Normalize,
    *,
    hparams: Mapping[str, float] | None = None,
    on_nan: Literal["stop", "skip"] = "stop",
    seed: int = 0,
    num_classes: int = 0,
    mix: Mix | None = None,
    micro_batches: int = 1,
    held: Sequence[str] = (),
    prepare: Callable[[Any], Any] | None = None,
    slow_steps: SlowSteps | None = None,
    slow_statistics: bool = True,
) -> TrainStep:
    """A training step.

    The loss is cross-entropy, mean over the batch, with labels softened by
    hparams['label_smoothing'] if it is there, and images and labels mixed by `mix`. The optimizer
    gets `hparams` and `step` as extra arguments; its updates are scaled by
    hparams['learning_rate'] (1 if missing) and `schedule(state.step)`, and added to what `prepare`
    makes of the parameters. The averages, if the state has any, follow with hparams['ema_decay'];
    with `slow_steps` they are Lookahead's slow weights, and BatchNorm's statistics among them only
    with `slow_statistics`.

    With hparams['sam_rho'] the gradient is that of sharpness-aware minimization (Foret et al. 2021,
    arXiv 2010.01412, algorithm 1): the one so far up the gradient, of the same batch. Loss,
    predictions and BatchNorm's running statistics are those of the weights themselves.

    Parameters that are `held`, by names as in optim.groups.freeze, have gradients of 0, and what
    only their gradients need is not computed.

    The batch is taken in `micro_batches` equal parts (`num_parts`), one after the other,
    with the mean of their gradients. The result is that of the whole batch, but for BatchNorm,
    which takes its statistics from each part.

    `num_classes` is needed for softened or mixed labels. The network gets the key
    fold_in(key(seed), state.step) as 'dropout': the same in a resumed run, another on each device
    of a mapped axis. XLA drops an unused key.

    A step whose loss or new state is not finite changes nothing but `sums.non_finite`. With
    `on_nan` 'skip' it counts as a step taken. With 'stop' it does not, and no later step changes
    anything while `sums.non_finite` is above 0: what is there when the host finds out is the state
    before that step.
    """
    with_hparams = optax.with_extra_args_support(optimizer)

    def train_step(
        state: TrainState,
        sums: MetricSums,
        batch: tuple[Images, Labels],
        hparams: Mapping[str, Any],
        axis_name: AxisName = None,
        norm_axis_name: str | None = None,
        seed: Any = seed,
    ) -> tuple[TrainState, MetricSums]:
        """One step; BatchNorm shares its statistics over `norm_axis_name`; None: they are local.

        Another `seed`, which may be traced, makes it the step of another run.
        """
        images, labels = batch
        network = model if norm_axis_name is None else model.clone(axis_name=norm_axis_name)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        inputs, targets = normalize(images), labels
        if mix is not None or "label_smoothing" in hparams:
            smoothing = hparams.get("label_smoothing", 0.0)
            targets = soften(labels, num_classes, smoothing, inputs.dtype)
        if mix is not None:
            inputs, targets = mix(jax.random.fold_in(key, 1), inputs, targets)
        parts = num_parts(micro_batches, len(images))
        of_part = functools.partial(_loss_and_grads, network, held)

        def loss_and_grads(state: TrainState) -> LossAndGrads:
            return _in_parts(of_part, parts, state, inputs, targets, key)

        (loss, (logits, batch_stats)), grads = loss_and_grads(state)
        if "sam_rho" in hparams:
            mean = grads if axis_name is None else lax.pmean(grads, axis_name)
            distance = hparams["sam_rho"] / (optax.tree.norm(mean) + 1e-12)
            up = jax.tree.map(lambda p, g: p + distance * g, state.params, mean)
            sharp = dataclasses.replace(state, params=up)
            _, grads = loss_and_grads(sharp)
        correct = is_correct(logits, labels).sum(dtype=jnp.int32)
        count = len(images)
        if axis_name is not None:
            loss, grads, batch_stats = lax.pmean((loss, grads, batch_stats), axis_name)
            correct = lax.psum(correct, axis_name)
            count *= lax.axis_size(axis_name)
        params = state.params if prepare is None else prepare(state.params)
        updates, opt_state = with_hparams.update(
            grads, state.opt_state, params, step=state.step, **hparams
        )
        rate = hparams.get("learning_rate", 1.0) * schedule(state.step)
        updates = jax.tree.map(lambda u: jnp.asarray(rate, u.dtype) * u, updates)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if state.averages is not None:
            new_state = _averaged(new_state, hparams, slow_steps, slow_statistics)
        new = new_state, sums.add(loss, correct, count)
        return _keep_finite(_all_finite((loss, new_state)), new, (state, sums), on_nan)

    return TrainStep(train_step, hparams or {})


def num_parts(micro_batches: int, num_images: int) -> int:
    """How many equal parts a batch is taken in: `micro_batches`, or the next divisor of its size.

    Up to twice as many; if none of these divides it, as with an epoch's short last batch, fewer.
    More would leave BatchNorm parts of a few images.
    """
    most = min(2 * micro_batches, num_images)
    divisors = [n for n in range(1, most + 1) if num_images % n == 0]
    return min((n for n in divisors if n >= micro_batches), default=divisors[-1])


def _averaged(
    state: TrainState,
    hparams: Mapping[str, Any],
    slow_steps: SlowSteps | None,
    slow_statistics: bool,
) -> TrainState:
    """The state after a step with its averages brought up to date."""
    values = dict(state.variables)
    if slow_steps is None:
        averages = moving_average(state.averages, values, state.step - 1, hparams["ema_decay"])
        return dataclasses.replace(state, averages=averages)
    averages, values = lookahead(state.averages, values, *slow_steps(state.step))
    if not slow_statistics:
        averages["batch_stats"] = values["batch_stats"] = state.batch_stats
    return dataclasses.replace(
        state, averages=averages, params=values["params"], batch_stats=values["batch_stats"]
    )


def _in_parts(
    of_part: Callable[..., LossAndGrads],
    parts: int,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
) -> LossAndGrads:
    """What `of_part` gives of a batch, from as many equal parts of it."""
    if parts == 1:
        return of_part(state, images, labels, key)

    def take(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        batch_stats, loss, grads = carry
        at = dataclasses.replace(state, batch_stats=batch_stats)
        part_key = jax.random.fold_in(key, batch[2])
        (part_loss, (logits, new_stats)), part_grads = of_part(at, *batch[:2], part_key)
        grads = jax.tree.map(lambda a, b: a + b / parts, grads, part_grads)
        return (new_stats, loss + part_loss / parts, grads), logits

    # Each part takes every so many-th image, and so has a share of every device's.
    split = [
        a.reshape(len(a) // parts, parts, *a.shape[1:]).swapaxes(0, 1) for a in (images, labels)
    ]
    nothing = jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params)
    (batch_stats, loss, grads), logits = lax.scan(
        take, (state.batch_stats, *nothing), (*split, jnp.arange(parts))
    )
    logits = logits.swapaxes(0, 1).reshape(-1, logits.shape[-1])
    return (loss, (logits, batch_stats)), grads


def _loss_and_grads(
    network: nn.Module,
    held: Sequence[str],
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
) -> LossAndGrads:
    """Of a batch, or a part of one, with its mean loss."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updates = network.apply(
            {"params": hold(params, held), "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return cross_entropy(logits, labels).mean(), (logits, updates["batch_stats"])

    return jax.value_and_grad(loss_fn, has_aux=True)(state.params)


def _all_finite(tree: Any) -> Bool[Array, ""]:
    """Asked of the new state, not of the gradients, which all end up in it.

    The optimizer's part is not implied by the parameters: where the square of a finite gradient
    overflows, Adam divides by infinity, and that weight would never move again.
    """
    flags = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])
    # XLA turns a reduction of stacked flags into a chain of operations, and computes it again in
    # the update of each leaf: the program grew with the square of their number. It keeps a sort.
    return jnp.sort(flags)[0]


def _keep_finite(
    finite: Bool[Array, ""],
    new: tuple[TrainState, MetricSums],
    old: tuple[TrainState, MetricSums],
    on_nan: str,
) -> tuple[TrainState, MetricSums]:
    """`new` after a finite step, else `old` with the step noted as not finite."""
    state, sums = old
    noted = dataclasses.replace(sums, non_finite=sums.non_finite + ~finite)
    if on_nan == "stop":
        finite &= sums.non_finite == 0
    else:
        state = dataclasses.replace(state, step=state.step + 1)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, (state, noted))


def make_predict(model: nn.Module, normalize: Normalize) -> Predict:
    """A function (variables, images uint8 [B, H, W, 3]) -> logits [B, classes]."""

    def predict(variables: Any, images: Images) -> Float[Array, "batch classes"]:
        logits: Any = model.apply(variables, normalize(images), train=False)
        return logits

    return predict


def make_eval_step(predict: Predict) -> EvalStep:
    """A function (variables, sums, (images, labels, mask)) -> (sums, logits [B, classes]).

    The sums are over the images where `mask` is True, the others being padding.
    """

    def eval_step(
        variables: Any,
        sums: MetricSums,
        batch: tuple[Images, Labels, Bool[Array, " batch"]],
        axis_name: str | None = None,
    ) -> tuple[MetricSums, Float[Array, "batch classes"]]:
        images, labels, mask = batch
        logits = predict(variables, images)
        loss = jnp.where(mask, cross_entropy(logits, labels), 0).sum()
        correct = (mask & is_correct(logits, labels)).sum(dtype=jnp.int32)
        count = mask.sum(dtype=jnp.int32)
        if axis_name is not None:
            loss, correct, count = lax.psum((loss, correct, count), axis_name)
        return sums.add(loss, correct, count), logits

    return eval_step
