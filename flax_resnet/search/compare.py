"""Runs that exist, compared: those of one recipe with several seeds belong together."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from flax_resnet.config.build import build_model
from flax_resnet.config.compat import FREE_FIELDS
from flax_resnet.config.load import flat_fields
from flax_resnet.models.summary import count_parameters
from flax_resnet.plots.curves import distinguishing_names
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_epochs
from flax_resnet.search.sweep import Result, best_first, summarized

logger = logging.getLogger(__name__)

# Besides the seed, what does not make another recipe.
_NOT_RECIPE = FREE_FIELDS | {"seed", "conv", "parallel", "steps_per_dispatch"}


def differing_fields(runs: Sequence[RunFolder]) -> dict[str, tuple[str, ...]]:
    """The fields of the recipes that are not the same in all runs -> each run's value."""
    configs = [flat_fields(run.config()) for run in runs]
    values = {
        name: tuple("-" if config[name] is None else str(config[name]) for config in configs)
        for name in configs[0]
        if name not in _NOT_RECIPE
    }
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def compare_runs(workdirs: Sequence[str | Path]) -> list[Result]:
    """A result for each recipe and number of epochs, the best first; runs without one are left out.

    Raises:
      UserError: one is not a run or given twice, or none has an epoch.
    """
    given = [RunFolder(workdir) for workdir in workdirs]
    names = dict(zip(given, distinguishing_names([run.path for run in given]), strict=True))
    rows = {run: read_epochs(run) for run in given if run.config()}
    runs = [run for run in given if rows[run]]
    for run in given:
        if not rows[run]:
            logger.warning("%s has no epoch yet and is left out", run.path)
    if not runs:
        paths = ", ".join(map(str, workdirs))
        raise UserError(f"{paths}: no epoch yet, so nothing to compare", code="missing")
    fields = differing_fields(runs)
    # A run that is not finished is no other seed of one that is: epochs tell them apart, too.
    groups: dict[tuple[tuple[str, ...], int], list[RunFolder]] = {}
    for place, run in enumerate(runs):
        setting = tuple(values[place] for values in fields.values())
        groups.setdefault((setting, len(rows[run])), []).append(run)
    results = []
    for (values, _), group in groups.items():
        setting = dict(zip(fields, values, strict=True))
        seeds = tuple(run.config().seed for run in group)
        if len(set(seeds)) < len(seeds):
            same = ", ".join(names[run] for run in group)
            logger.warning("%s: some have the same seed, and yet count as several runs", same)
        result = summarized(setting, seeds, [rows[run] for run in group])
        config, data = group[0].config(), group[0].data_info()
        params = count_parameters(build_model(config, len(data.class_names)), data.image_shape)
        own = tuple(names[run] for run in group)
        results.append(dataclasses.replace(result, runs=own, params=params))
    return best_first(results)
