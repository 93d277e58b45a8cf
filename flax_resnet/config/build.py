"""From a config to what it describes; below this file there are explicit arguments."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from flax_resnet.config.load import design_of
from flax_resnet.engine.mixing import Mix, cutmix, mixup
from flax_resnet.engine.state import MetricSums, abstract_state
from flax_resnet.engine.steps import (
    EvalStep,
    TrainStep,
    make_eval_step,
    make_normalize,
    make_predict,
    make_train_step,
)
from flax_resnet.engine.views import predict_views
from flax_resnet.models.layers import Convolve
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.whitening import KERNEL
from flax_resnet.optim.averages import SlowSteps, lookahead_schedule
from flax_resnet.optim.groups import RATED, decay_mask, freeze, stop_stem_bias, with_rates
from flax_resnet.optim.muon import normalize_filters
from flax_resnet.optim.optimizers import OPTIMIZERS
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
    shape, peak = _build_shape(config, steps_per_epoch), np.float32(peak_learning_rate(config))
    return lambda step: peak * shape(step)  # as the training step computes it


def peak_learning_rate(config: ConfigDict) -> float:
    """The learning rate, scaled to the batch where the config asks for it.

    Linear: Goyal et al. 2017 (arXiv 1706.02677), section 2.1. Square root: Krizhevsky 2014
    (arXiv 1404.5997), section 3, which keeps the variance of an update; the usual one for Adam.
    """
    if config.learning_rate_scaling == "none":
        return config.learning_rate
    ratio = config.batch_size / config.tuned_batch_size
    return config.learning_rate * (
        ratio if config.learning_rate_scaling == "linear" else ratio**0.5
    )


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
        start=config.schedule_start,
        end=config.schedule_end,
    )


# Hyperparameters whose work the step does without where they are off.
_OFF = {
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "ema_decay": 0.0,
    "sam_rho": 0.0,
    **{f"{group}_rate": 1.0 for group in RATED},
    "clip_value": None,
    "clip_norm": None,
}


def build_hparams(config: ConfigDict, steps_per_epoch: int = 1) -> dict[str, float]:
    """The hyperparameters that the training step takes as arguments."""
    hparams = {"learning_rate": peak_learning_rate(config)}
    hparams |= {name: config[name] for name in ("momentum", "epsilon")}
    for name, off in _OFF.items():
        if config[name] != off:
            hparams[name] = config[name]
    if config.optimizer == "muon":
        hparams["muon_momentum"] = config.muon_momentum
    if config.stem_bias_epochs is not None:
        hparams["stem_bias_steps"] = config.stem_bias_epochs * steps_per_epoch
    return hparams


def build_optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """The optimizer, for a learning rate of 1.

    `update` takes those of build_hparams, too, and `step`, the steps taken before.
    """
    frozen = _frozen(config)

    def optimizer(hparams: Mapping[str, Any], step: Any) -> optax.GradientTransformation:
        parts = []
        if "clip_value" in hparams:
            parts.append(optax.clip(hparams["clip_value"]))
        if "clip_norm" in hparams:
            parts.append(optax.clip_by_global_norm(hparams["clip_norm"]))
        parts.append(_build_rule(config, hparams))
        if "stem_bias_steps" in hparams:
            parts.append(stop_stem_bias(step < hparams["stem_bias_steps"]))
        if frozen:
            parts.append(freeze(frozen))
        return optax.chain(*parts) if len(parts) > 1 else parts[0]

    def update(updates: Any, state: Any, params: Any = None, *, step: Any, **hparams: Any) -> Any:
        return optimizer(hparams, step).update(updates, state, params)

    return optax.GradientTransformationExtraArgs(optimizer(build_hparams(config), 0).init, update)


def _build_rule(config: ConfigDict, hparams: Mapping[str, Any]) -> optax.GradientTransformation:
    """The update rule, with the rates that groups of parameters have."""

    def make(weight_decay: Any) -> optax.GradientTransformation:
        own = {} if weight_decay is None else {"weight_decay": weight_decay}
        return OPTIMIZERS[config.optimizer](
            beta1=config.beta1,
            beta2=config.beta2,
            mask=decay_mask if config.decay == "kernels" else None,
            **{**hparams, **own},
        )

    rates = {group: hparams[f"{group}_rate"] for group in RATED if f"{group}_rate" in hparams}
    weight_decay = hparams.get("weight_decay")
    return with_rates(make, rates, weight_decay) if rates else make(weight_decay)


def _frozen(config: ConfigDict) -> tuple[str, ...]:
    """Names of the parameters that are not trained, the whitening filters among them."""
    whitening = ("/".join(KERNEL),) if design_of(config).stem == "whiten" else ()
    return (*config.freeze, *whitening)


def keeps_averages(config: ConfigDict) -> bool:
    """Whether the training state holds averages, or Lookahead's slow weights."""
    return config.ema_decay > 0 or config.lookahead_steps > 0


def _build_slow_steps(config: ConfigDict, steps_per_epoch: int) -> SlowSteps | None:
    if not config.lookahead_steps:
        return None
    steps = config.num_epochs * steps_per_epoch
    if config.lookahead_steps > steps:
        raise UserError(
            f"config.lookahead_steps is {config.lookahead_steps}, more than the run's {steps} "
            "steps: the weights that are evaluated would stay the initial ones",
            field="config.lookahead_steps",
        )
    return lookahead_schedule(
        config.lookahead_steps, config.lookahead_decay, config.lookahead_power, steps
    )


def build_train_step(
    config: ConfigDict,
    num_classes: int,
    steps_per_epoch: int,
    convolve: Convolve = None,
    *,
    holds_stem_bias: bool = False,
) -> TrainStep:
    """The training step.

    Args:
      config: checked by config.validate.
      num_classes: of the images.
      steps_per_epoch: in each epoch.
      convolve: what computes convolutions.
      holds_stem_bias: a step for after config.stem_bias_epochs, without that gradient.
    """
    frozen = _frozen(config)
    return make_train_step(
        build_model(config, num_classes, convolve),
        build_optimizer(config),
        _build_shape(config, steps_per_epoch),
        make_normalize(config.mean, config.std),
        hparams=build_hparams(config, steps_per_epoch),
        on_nan=config.on_nan,
        seed=config.seed,
        num_classes=num_classes,
        mix=_build_mix(config),
        micro_batches=config.micro_batches,
        held=(*frozen, KERNEL[0]) if holds_stem_bias else frozen,
        prepare=(
            functools.partial(normalize_filters, frozen=frozen)
            if config.optimizer == "muon"
            else None
        ),
        slow_steps=_build_slow_steps(config, steps_per_epoch),
        slow_statistics=config.lookahead_statistics,
    )


def _build_mix(config: ConfigDict) -> Mix | None:
    if config.mixup:
        return mixup(config.mixup)
    return cutmix(config.cutmix) if config.cutmix else None


def build_eval_step(
    config: ConfigDict, num_classes: int, views: str = "none", convolve: Convolve = None
) -> EvalStep:
    """The evaluation step; `views` are those of config.test_views."""
    model = build_model(config, num_classes, convolve)
    predict = make_predict(model, make_normalize(config.mean, config.std))
    return make_eval_step(predict if views == "none" else predict_views(predict, views))


def abstract_checkpoint(
    config: ConfigDict, num_classes: int, image_shape: tuple[int, int, int]
) -> tuple[Any, Any]:
    """Shapes and dtypes of a run's training state and metric sums; no weight is allocated."""
    model, optimizer = build_model(config, num_classes), build_optimizer(config)
    state = abstract_state(model, optimizer, image_shape, averages=keeps_averages(config))
    return state, jax.eval_shape(MetricSums.zeros)
