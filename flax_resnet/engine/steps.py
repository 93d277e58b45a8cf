"""One training step and one evaluation step, as pure functions.

`parallel.py` compiles them. Under a mapped axis (shard_map, pmap) `axis_name` names it, and each
device holds an equal share of the batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from flax_resnet.engine.state import MetricSums, TrainState
from flax_resnet.models.resnet import ResNet

Normalize = Callable[[UInt8[Array, "*shape channels"]], Float[Array, "*shape channels"]]
TrainStep = Callable[..., tuple[TrainState, MetricSums]]
EvalStep = Callable[..., MetricSums]


def make_normalize(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: Any = jnp.float32
) -> Normalize:
    """A function that scales uint8 images to [0, 1], subtracts `mean` and divides by `std`."""

    def normalize(images: UInt8[Array, "*shape channels"]) -> Float[Array, "*shape channels"]:
        return (images.astype(dtype) / 255 - jnp.asarray(mean, dtype)) / jnp.asarray(std, dtype)

    return normalize


def make_train_step(
    model: ResNet,
    optimizer: optax.GradientTransformation,
    normalize: Normalize,
    axis_name: str | None = None,
    on_nan: Literal["stop", "skip"] = "stop",
) -> TrainStep:
    """A function (state, sums, (images uint8 [B, H, W, 3], labels int [B])) -> (state, sums).

    The loss is cross-entropy, mean over the batch. BatchNorm's statistics are those of the local
    batch unless `model.axis_name` is `axis_name`; the running ones are averaged over devices.

    A step whose loss, a gradient or a statistic of BatchNorm is not finite changes nothing but
    `sums.non_finite`. With `on_nan` 'skip' it counts as a step taken. With 'stop' it does not, and
    no later step changes anything while `sums.non_finite` is above 0: what is there when the host
    finds out is the state before that step.
    """

    def train_step(
        state: TrainState,
        sums: MetricSums,
        batch: tuple[UInt8[Array, "batch height width channels"], Int[Array, " batch"]],
    ) -> tuple[TrainState, MetricSums]:
        images, labels = batch

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                normalize(images),
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), (logits, updates["batch_stats"])

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (logits, batch_stats)), grads = grad_fn(state.params)
        correct = (logits.argmax(-1) == labels).sum(dtype=jnp.int32)
        count = labels.size
        if axis_name is not None:
            loss, grads, batch_stats = lax.pmean((loss, grads, batch_stats), axis_name)
            correct = lax.psum(correct, axis_name)
            count *= lax.axis_size(axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        finite = _all_finite((loss, grads, batch_stats))
        old_sums = dataclasses.replace(sums, non_finite=sums.non_finite + ~finite)
        old_state = state
        if on_nan == "stop":
            finite &= sums.non_finite == 0
        else:
            old_state = dataclasses.replace(state, step=state.step + 1)
        return _choose(finite, (new_state, sums.add(loss, correct, count)), (old_state, old_sums))

    return train_step


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _choose(condition: Bool[Array, ""], tree: Any, otherwise: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), tree, otherwise)


def make_eval_step(model: ResNet, normalize: Normalize, axis_name: str | None = None) -> EvalStep:
    """A function (variables, sums, (images, labels, mask)) -> sums, over the images in `mask`."""

    def eval_step(
        variables: Any,
        sums: MetricSums,
        batch: tuple[
            UInt8[Array, "batch height width channels"],
            Int[Array, " batch"],
            Bool[Array, " batch"],
        ],
    ) -> MetricSums:
        images, labels, mask = batch
        logits: Any = model.apply(variables, normalize(images), train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        loss = jnp.where(mask, losses, 0).sum()
        correct = (mask & (logits.argmax(-1) == labels)).sum(dtype=jnp.int32)
        count = mask.sum(dtype=jnp.int32)
        if axis_name is not None:
            loss, correct, count = lax.psum((loss, correct, count), axis_name)
        return sums.add(loss, correct, count)

    return eval_step
