"""From a config to what it describes; below this file there are explicit arguments."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from flax_resnet.config.load import design_of
from flax_resnet.engine.state import MetricSums, abstract_state
from flax_resnet.engine.steps import (
    EvalStep,
    TrainStep,
    make_eval_step,
    make_normalize,
    make_predict,
    make_train_step,
)
from flax_resnet.models.layers import Convolve
from flax_resnet.models.resnet import ResNet
from flax_resnet.optim.optimizers import OPTIMIZERS, decay_mask
from flax_resnet.optim.schedules import make_schedule
from flax_resnet.process.errors import UserError

MAX_TOTAL_STEPS = 2**31 - 1  # TrainState.step is an int32


def build_model(config: ConfigDict, num_classes: int, convolve: Convolve = None) -> ResNet:
    """The network.

    Args:
      config: model, design, weight_init and dtype are used.
      num_classes: number of logits.
      convolve: what computes convolutions; None: XLA.
    """
    return ResNet(
        design_of(config),
        num_classes,
        weight_init=config.weight_init,
        dtype=jnp.dtype(config.dtype),
        convolve=convolve,
    )


def build_schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by step.

    Raises:
      UserError: the run has more steps than an int32 counts.
    """
    shape, peak = _build_shape(config, steps_per_epoch), np.float32(config.learning_rate)
    return lambda step: peak * shape(step)  # as the training step computes it


def _build_shape(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """The schedule of a learning rate of 1."""
    total_steps = config.num_epochs * steps_per_epoch
    if total_steps > MAX_TOTAL_STEPS:
        raise UserError(
            f"config.num_epochs is {config.num_epochs:,}, but with {steps_per_epoch:,} steps an "
            f"epoch it can be {MAX_TOTAL_STEPS // steps_per_epoch:,} at most",
            field="config.num_epochs",
        )
    return make_schedule(
        config.schedule,
        learning_rate=1.0,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        step_boundaries=config.step_boundaries,
        step_factor=config.step_factor,
    )


def build_hparams(config: ConfigDict) -> dict[str, float]:
    """The hyperparameters that the training step takes as arguments."""
    hparams = {name: config[name] for name in ("learning_rate", "momentum", "epsilon")}
    if config.weight_decay:  # without, the step does not compute it
        hparams["weight_decay"] = config.weight_decay
    return hparams


def build_optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """The optimizer, for a learning rate of 1; `update` takes those of build_hparams, too."""

    def optimizer(hparams: Mapping[str, Any]) -> optax.GradientTransformation:
        return OPTIMIZERS[config.optimizer](
            beta1=config.beta1,
            beta2=config.beta2,
            mask=decay_mask if config.decay == "kernels" else None,
            **hparams,
        )

    def update(updates: Any, state: Any, params: Any = None, **hparams: Any) -> Any:
        return optimizer(hparams).update(updates, state, params)

    return optax.GradientTransformationExtraArgs(optimizer(build_hparams(config)).init, update)


def build_train_step(
    config: ConfigDict, num_classes: int, steps_per_epoch: int, convolve: Convolve = None
) -> TrainStep:
    """The training step."""
    return make_train_step(
        build_model(config, num_classes, convolve),
        build_optimizer(config),
        _build_shape(config, steps_per_epoch),
        make_normalize(config.mean, config.std),
        hparams=build_hparams(config),
        on_nan=config.on_nan,
        seed=config.seed,
    )


def build_eval_step(config: ConfigDict, num_classes: int) -> EvalStep:
    """The evaluation step."""
    model = build_model(config, num_classes)
    return make_eval_step(make_predict(model, make_normalize(config.mean, config.std)))


def abstract_checkpoint(
    config: ConfigDict, num_classes: int, image_shape: tuple[int, int, int]
) -> tuple[Any, Any]:
    """Shapes and dtypes of a run's training state and metric sums; no weight is allocated."""
    model, optimizer = build_model(config, num_classes), build_optimizer(config)
    return abstract_state(model, optimizer, image_shape), jax.eval_shape(MetricSums.zeros)
