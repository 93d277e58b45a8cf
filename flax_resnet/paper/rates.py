"""The best of three learning rates for each SGD variant, by images held out from training."""

from collections.abc import Mapping

from flax_resnet.paper.history import Histories, History
from flax_resnet.paper.plan import (
    OPTIMIZER_SETTINGS,
    TRIAL_EPOCHS,
    PlannedRun,
    optimizer_run,
    rate_trials,
)


def tried_rates(histories: Histories, optimizer: str) -> dict[float, History]:
    """Learning rate -> its trial, for the trials that are done."""
    return {
        rate: histories[run.name]
        for rate, run in rate_trials(optimizer).items()
        if run.name in histories and histories[run.name].last["epoch"] >= TRIAL_EPOCHS
    }


def best_rate(trials: Mapping[float, History]) -> float:
    """The rate whose trial ends with the highest accuracy on the images held out."""
    return max(trials, key=lambda rate: trials[rate].last["val_accuracy"])


def tuned_runs(histories: Histories) -> list[PlannedRun]:
    """The runs at the best rates, where that is not the planned rate and all trials are done."""
    runs = []
    for optimizer in OPTIMIZER_SETTINGS:
        trials = tried_rates(histories, optimizer)
        if trials and len(trials) == len(rate_trials(optimizer)):
            run = optimizer_run(optimizer, best_rate(trials))
            if run != optimizer_run(optimizer):
                runs.append(run)
    return runs
