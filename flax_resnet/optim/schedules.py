"""Learning-rate schedules by name: functions of the global step."""

from collections.abc import Sequence

import optax

SCHEDULES = ("constant", "step", "cosine", "linear", "one_cycle")


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    step_boundaries: Sequence[float] = (0.5, 0.75),
    step_factor: float = 0.1,
    start: float = 0.0,
    end: float = 0.0,
) -> optax.Schedule:
    """The learning rate at each global step.

    A warm-up climbs linearly from `start` and reaches the schedule at step `warmup_steps`.

    Args:
      name: one of SCHEDULES. 'constant'; 'step': times `step_factor` at each boundary (He et al.
        2016, section 4.2); 'cosine': to 0 at the end (Loshchilov and Hutter 2017, without
        restarts); 'linear': to `end` at the end; 'one_cycle': up from 1/25 and down to 1/250,000
        of the highest, both as cosines (Smith and Topin 2019, with the numbers of PyTorch's
        OneCycleLR).
      learning_rate: the highest value.
      total_steps: steps of the whole run.
      warmup_steps: steps of the climb; of 'one_cycle' 0 means 30% of the run.
      step_boundaries: of 'step': fractions of the run, warm-up included.
      step_factor: of 'step'.
      start: of the warm-up of any but 'one_cycle': a fraction of `learning_rate`.
      end: of 'linear': a fraction of `learning_rate`.

    Raises:
      ValueError: unknown name.
    """
    if name == "one_cycle":
        # optax takes two boundaries that fall together, as in a run of few steps, for one.
        climb_steps = min(warmup_steps, total_steps - 1)
        return optax.cosine_onecycle_schedule(
            total_steps,
            learning_rate,
            # optax rounds pct_start * total_steps down: half a step keeps 29 / 100 from giving 28.
            pct_start=(climb_steps + 0.5) / total_steps if climb_steps else 0.3,
        )
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "step":
        drops: dict[int, float] = {}
        for boundary in step_boundaries:  # in a short run two can fall on one step
            step = round(boundary * total_steps) - warmup_steps
            drops[step] = drops.get(step, 1.0) * step_factor
        schedule = optax.piecewise_constant_schedule(learning_rate, drops)
    elif name == "cosine":
        schedule = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    elif name == "linear":
        schedule = optax.linear_schedule(
            learning_rate, end * learning_rate, max(total_steps - warmup_steps, 1)
        )
    else:
        raise ValueError(f"unknown schedule {name!r}: one of {', '.join(SCHEDULES)}")
    if not warmup_steps:
        return schedule
    climb = optax.linear_schedule(start * learning_rate, learning_rate, warmup_steps)
    return optax.join_schedules([climb, schedule], [warmup_steps])
