"""The runs each section needs; sections share them, so that nothing is trained twice."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.config.load import find_config, load_config
from flax_resnet.process.errors import UserError

PLAIN_AND_RESIDUAL = ("plain20", "plain56", "resnet20", "resnet56")  # Figure 1 and its cure

# Section 2.2's optimizers on the revised network. Adam's learning rate is the paper's. SGD gets
# 0.1; momentum m scales a step by 1 / (1 - m) in the long run, so 0.01 with m = 0.9 is the same
# effective step.
OPTIMIZER_SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {"learning_rate": 1e-3},
    "sgd": {"learning_rate": 0.1},
    "momentum": {"learning_rate": 0.01, "momentum": 0.9},
    "nesterov": {"learning_rate": 0.01, "momentum": 0.9},
}

PYTORCH_RUN = (
    "pytorch_adam_seed0"  # the paper's run in PyTorch (benchmarks/torch_recipe.py), if any
)

# Each SGD variant gets the best of three rates, so that Adam is compared with fair opponents: those
# after the first epochs with the highest accuracy on training images that are held out.
RATE_FACTORS = (0.3, 1.0, 3.0)
TRIAL_EPOCHS = 2
TRIAL_CHANGES = (("validation_split", 5000), ("on_nan", "skip"))

# Fields that the plan sets, and what to do instead.
_PLANNED_FIELDS = {
    "model": "each section has its own",
    "optimizer": "each section has its own",
    "learning_rate": "each section has its own",
    "momentum": "each section has its own",
    "seed": "use --seeds N",
    "train_images": "use --train-images N",
    "test_images": "use --test-images N",
}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run that the report needs.

    Attributes:
      name: of its folder, and in tables.
      recipe: name of a config.
      changes: (field, value) pairs that differ from the recipe.
      epochs: the epoch to end after; None: the recipe's last.
    """

    name: str
    recipe: str
    changes: tuple[tuple[str, Any], ...] = ()
    epochs: int | None = None


def optimizer_run(optimizer: str, rate: float | None = None) -> PlannedRun:
    """The revised network with one of OPTIMIZER_SETTINGS; adam is the paper's own run.

    Args:
      optimizer: which.
      rate: the learning rate; None: that of OPTIMIZER_SETTINGS.
    """
    if optimizer == "adam":
        return seed_run(0)
    settings = OPTIMIZER_SETTINGS[optimizer]
    name = f"revised_{optimizer}"
    if rate is not None and rate != settings["learning_rate"]:
        name += f"_rate{rate:g}"
        settings = {**settings, "learning_rate": rate}
    return PlannedRun(name, "revised", (("optimizer", optimizer), *settings.items()))


def rate_trials(optimizer: str) -> dict[float, PlannedRun]:
    """Learning rate -> the short run that tries it; {} for adam, whose rate is the paper's."""
    if optimizer == "adam":
        return {}
    planned = OPTIMIZER_SETTINGS[optimizer]["learning_rate"]
    trials = {}
    for rate in (round(factor * planned, 6) for factor in RATE_FACTORS):
        changes = optimizer_run(optimizer, rate).changes + TRIAL_CHANGES
        name = f"trial_{optimizer}_rate{rate:g}"
        trials[rate] = PlannedRun(name, "revised", changes, TRIAL_EPOCHS)
    return trials


def seed_run(seed: int) -> PlannedRun:
    """The paper's own run with a seed."""
    return PlannedRun(f"revised_adam_seed{seed}", "revised", (("seed", seed),))


def planned_runs(sections: Sequence[str], seeds: int) -> list[PlannedRun]:
    """The runs that sections need, each once; the paper's own run first.

    The runs that depend on the results of others are those of rates.tuned_runs.

    Args:
      sections: some of SECTION_NAMES.
      seeds: number of seeds for the results.
    """
    runs: list[PlannedRun] = []
    if {"figure5-6", "optimizers", "results"} & set(sections):
        runs.append(seed_run(0))
    if "optimizers" in sections:
        runs += [optimizer_run(name) for name in OPTIMIZER_SETTINGS if name != "adam"]
        runs += [trial for name in OPTIMIZER_SETTINGS for trial in rate_trials(name).values()]
    if "figure1" in sections:
        runs += [PlannedRun(name, name) for name in PLAIN_AND_RESIDUAL]
    if "results" in sections:
        runs += [seed_run(seed) for seed in range(1, seeds)]
    return runs


def load_run_config(run: PlannedRun, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a run: its recipe with the user's overrides and its own changes.

    Args:
      run: one of planned_runs.
      overrides: as typed, such as ['--config.dataset=digits'].

    Raises:
      UserError: an override is unknown, out of range, or of a field that the plan sets.
    """
    for argument in overrides:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and match[1] in _PLANNED_FIELDS:
            raise UserError(
                f"config.{match[1]} cannot be changed here: {_PLANNED_FIELDS[match[1]]}",
                code="conflict",
                field=f"config.{match[1]}",
            )
    changes = [f"--config.{field}={value}" for field, value in run.changes]
    return load_config(find_config(run.recipe), [*changes, *overrides])
