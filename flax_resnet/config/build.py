"""From a config to the things it names, as explicit arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from flax_resnet.config.load import design_of
from flax_resnet.engine.state import MetricSums, init_state
from flax_resnet.engine.steps import (
    EvalStep,
    TrainStep,
    make_eval_step,
    make_normalize,
    make_train_step,
)
from flax_resnet.models.layers import Convolve
from flax_resnet.models.resnet import ResNet
from flax_resnet.optim.optimizers import make_optimizer
from flax_resnet.optim.schedules import make_schedule
from flax_resnet.process.errors import UserError

MAX_STEPS = 2**31 - 1  # TrainState.step is an int32


def build_model(
    config: ConfigDict,
    num_classes: int,
    axis_name: str | None = None,
    convolve: Convolve = None,
) -> ResNet:
    """The network.

    Args:
      config: model, design, weight_init and dtype are used.
      num_classes: number of logits.
      axis_name: the mapped axis over which BatchNorm shares its statistics.
      convolve: what computes convolutions; None: XLA.
    """
    return ResNet(
        design_of(config),
        num_classes,
        weight_init=config.weight_init,
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
        convolve=convolve,
    )


def build_schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate by step.

    Raises:
      UserError: the run has more steps than an int32 counts.
    """
    total_steps = config.num_epochs * steps_per_epoch
    if total_steps > MAX_STEPS:
        raise UserError(
            f"config.num_epochs is {config.num_epochs:,}: with {steps_per_epoch:,} steps an epoch "
            f"it must be {MAX_STEPS // steps_per_epoch:,} at most"
        )
    return make_schedule(
        config.schedule,
        learning_rate=config.learning_rate,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        step_boundaries=config.step_boundaries,
        step_factor=config.step_factor,
    )


def build_optimizer(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser with its schedule."""
    return make_optimizer(
        config.optimizer,
        build_schedule(config, steps_per_epoch),
        momentum=config.momentum,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        decay=config.decay,
    )


def build_train_step(
    config: ConfigDict, num_classes: int, steps_per_epoch: int, convolve: Convolve = None
) -> Callable[[str | None, str | None], TrainStep]:
    """What DataParallel.compile takes: mapped axis, axis of BatchNorm -> training step."""
    optimizer = build_optimizer(config, steps_per_epoch)
    normalize = make_normalize(config.mean, config.std)
    return lambda axis_name, norm_axis_name: make_train_step(
        build_model(config, num_classes, norm_axis_name, convolve),
        optimizer,
        normalize,
        axis_name,
        config.on_nan,
    )


def build_eval_step(
    config: ConfigDict, num_classes: int
) -> Callable[[str | None, str | None], EvalStep]:
    """What DataParallel.compile takes: mapped axis, (unused) axis of BatchNorm -> eval step."""
    model = build_model(config, num_classes)
    normalize = make_normalize(config.mean, config.std)
    return lambda axis_name, _: make_eval_step(model, normalize, axis_name)


def abstract_checkpoint(
    config: ConfigDict, num_classes: int, image_shape: tuple[int, int, int]
) -> tuple[Any, Any]:
    """Shapes and dtypes of a run's training state and metric sums; no weight is allocated."""
    model = build_model(config, num_classes)
    optimizer = build_optimizer(config, steps_per_epoch=1)
    state = jax.eval_shape(lambda: init_state(model, optimizer, image_shape, config.seed))
    return state, jax.eval_shape(MetricSums.zeros)
