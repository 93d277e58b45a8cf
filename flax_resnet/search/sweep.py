"""A recipe with several seeds and several values of its fields: the runs, and what they say.

Every combination is a run folder of its own, so that a sweep resumes as a run does.
"""

import dataclasses
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from flax_resnet.config.compat import check_may_resume
from flax_resnet.config.load import load_config
from flax_resnet.engine.processes import Processes
from flax_resnet.process.errors import UserError, shortened
from flax_resnet.process.signals import StopRequest
from flax_resnet.report.spread import Spread, spread
from flax_resnet.report.table import Table
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_epochs
from flax_resnet.search.race import TIE
from flax_resnet.training.loop import going_on_after_divergence, train_and_evaluate
from flax_resnet.training.together import check_together, train_together

logger = logging.getLogger(__name__)

MOST_RUNS = 10_000
WIDTH = 120  # letters of a line; a wider table is turned
# What is told of a setting's runs, each after their last epoch; the first that is there ranks them.
METRICS = {
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "test_views_accuracy": "test with views",
    "train_accuracy": "training",
}


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      setting: field -> value as typed, for the fields with several values.
      seed: its seed.
      config: of the run.
    """

    setting: Mapping[str, str]
    seed: int
    config: ConfigDict

    @property
    def folder(self) -> str:
        """Its folder below the sweep's: learning_rate=0.1,flip=True/seed0."""
        parts = [f"{field}={value}" for field, value in self.setting.items()]
        name = re.sub(r"[^A-Za-z0-9=.,()+-]", "_", ",".join(parts)) or "recipe"
        return f"{name}/seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What the runs of one setting say, after their last epochs.

    Attributes:
      setting: field -> value.
      seeds: of the runs, in order.
      values: metric -> its value for each seed, for the metrics that all have.
      epochs: the fewest that a run has.
      seconds: mean training time of a run.
      runs: names of the runs, where they are not known by setting and seed.
      params: parameters of the network; None: not counted.
    """

    setting: Mapping[str, str]
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    epochs: int
    seconds: float
    runs: tuple[str, ...] = ()
    params: int | None = None

    @property
    def name(self) -> str:
        """The setting in words, or the runs."""
        if self.runs:
            return ", ".join(self.runs)
        return ", ".join(f"{field}={value}" for field, value in self.setting.items()) or "recipe"

    def spread(self, metric: str) -> Spread:
        """Mean and deviation of a metric over the seeds."""
        return spread(self.values[metric])


def plan_sweep(path: Path, overrides: Sequence[str], seeds: int) -> list[SweepRun]:
    """All runs: every combination of the values, with every seed.

    Args:
      path: the config's file.
      overrides: as typed; --config.FIELD=A,B,C gives a field several values.
      seeds: how many, from the config's own on.

    Raises:
      UserError: a value is not allowed, a field with several is given twice, two settings would
        have one folder, or there are too many runs.
    """
    choices = [_values(argument) for argument in _joined(overrides)]
    for name, values in choices:
        if len(values) > 1 and [other for other, _ in choices].count(name) > 1:
            raise UserError(f"{name} is given twice: give all its values at once", field=name)
    if any(len(values) > 1 and name.endswith("config.seed") for name, values in choices):
        raise UserError(
            "--config.seed is that of the first run: give one, and --seeds N", field="--seeds"
        )
    total = seeds
    for _, values in choices:
        total *= len(values)
    if total > MOST_RUNS:
        raise UserError(f"the sweep has {total:,} runs: at most {MOST_RUNS:,}", field="--seeds")
    runs = []
    for values in itertools.product(*(values for _, values in choices)):
        typed = [(name, value) for (name, _), value in zip(choices, values, strict=True)]
        arguments = [name if value is None else f"{name}={value}" for name, value in typed]
        config = load_config(path, arguments)
        setting = {
            name.split(".", 1)[1]: str(value)
            for (name, values), (_, value) in zip(choices, typed, strict=True)
            if len(values) > 1
        }
        for seed in range(config.seed, config.seed + seeds):
            own = load_config(path, [*arguments, f"--config.seed={seed}"])
            runs.append(SweepRun(setting, seed, own))
    _check_folders(runs)
    return runs


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments as typed, but '--config.FIELD VALUE' as '--config.FIELD=VALUE'."""
    joined: list[str] = []
    for argument in arguments:
        takes = joined and re.fullmatch(r"--?config\.[^=]*", joined[-1])
        if takes and not argument.startswith(("--", "-config.")):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _check_folders(runs: Sequence[SweepRun]) -> None:
    named: dict[str, SweepRun] = {}
    for run in runs:
        other = named.setdefault(run.folder, run)
        if other is not run:
            raise UserError(
                f"{dict(other.setting)} and {dict(run.setting)} would share the folder "
                f"{run.folder}: give them in two sweeps, with another --out",
                code="conflict",
                field="--out",
            )


def _values(argument: str) -> tuple[str, list[str | None]]:
    """('--config.FIELD', its values); the commas of a tuple do not separate."""
    name, equals, text = argument.partition("=")
    if not equals or not re.match(r"--?config\.", name):
        return argument, [None]
    return name, list(dict.fromkeys(re.split(r",(?![^(\[]*[)\]])", text)))


def run_sweep(
    runs: Sequence[SweepRun],
    out: Path,
    *,
    devices: Sequence[Any] | None = None,
    train: Callable[..., Any] = train_and_evaluate,
    together: bool = False,
) -> int | None:
    """Trains or resumes the runs in turn; returns the signal that stopped it, None at the end.

    A run whose loss is not finite ends there, with a line that says so; the others go on.

    Args:
      runs: as from plan_sweep.
      out: holds the run folders.
      devices: jax.Devices to share each batch; None: all local ones.
      train: trains one run, with the arguments of train_and_evaluate.
      together: train the seeds of a setting as one program.

    Raises:
      UserError: a run cannot be trained.
    """
    stop = StopRequest(listens=True)
    if together:
        _train_settings(runs, out, devices, stop)
        return stop.signum
    for number, run in enumerate(runs, start=1):
        logger.info("run %d of %d: %s", number, len(runs), run.folder)
        with going_on_after_divergence(run.folder):
            train(run.config, out / run.folder, devices=devices, stop=stop)
        if stop.signum is not None:
            return stop.signum
    return None


def _train_settings(
    runs: Sequence[SweepRun], out: Path, devices: Sequence[Any] | None, stop: StopRequest
) -> None:
    """Trains the seeds of each setting together, one setting after another."""
    number = len(jax.local_devices() if devices is None else devices)
    for run in runs:
        check_together(run.config, alone=Processes().alone, num_devices=number)
    settings = [list(group) for _, group in itertools.groupby(runs, key=lambda run: run.setting)]
    for place, group in enumerate(settings, start=1):
        name = Path(group[0].folder).parent
        logger.info("setting %d of %d: %s, %d seeds", place, len(settings), name, len(group))
        configs, workdirs = [run.config for run in group], [out / run.folder for run in group]
        with going_on_after_divergence(str(name)):
            train_together(configs, workdirs, devices=devices, stop=stop)
        if stop.signum is not None:
            return


def read_results(runs: Sequence[SweepRun], out: Path) -> list[Result]:
    """The results of the settings that have a run with an epoch, the best first.

    Of a setting's runs, those with fewer epochs than another are left out, with a line; so are
    settings without an epoch.

    Raises:
      UserError: a folder holds a run of another config.
    """
    results, missing = [], []
    for setting, group in itertools.groupby(runs, key=lambda run: run.setting):
        found, members = [], list(group)
        for run in members:
            folder = RunFolder(out / run.folder)
            if rows := read_epochs(folder):
                check_may_resume(str(folder.path), folder.config(), run.config, "--out")
                found.append((run, rows))
        most = max((len(rows) for _, rows in found), default=0)
        for run, rows in found:
            if len(rows) < most:
                logger.warning(
                    "%s has %d of %d epochs and is left out", run.folder, len(rows), most
                )
        if found:
            whole = [(run.seed, rows) for run, rows in found if len(rows) == most]
            seeds, epochs = zip(*whole, strict=True)
            results.append(summarized(setting, seeds, epochs))
        else:
            missing.append(str(Path(members[0].folder).parent))
    if missing:
        logger.warning("without an epoch, left out: %s", shortened("; ".join(missing), 300))
    return best_first(results)


def summarized(
    setting: Mapping[str, str], seeds: tuple[int, ...], runs: Sequence[Sequence[Row]]
) -> Result:
    """The result of a setting's runs, from the epochs of each, at least one."""
    last = [rows[-1] for rows in runs]
    metrics = [name for name in METRICS if all(row.get(name) is not None for row in last)]
    return Result(
        setting,
        seeds,
        {name: tuple(row[name] for row in last) for name in metrics},
        min(row["epoch"] for row in last),
        sum(row["seconds"] for rows in runs for row in rows) / len(runs),
    )


def best_first(results: Sequence[Result]) -> list[Result]:
    """Results in the order of what ranks them."""
    return sorted(results, key=lambda result: -result.spread(ranked_by(results)).mean)


def ranked_by(results: Sequence[Result]) -> str:
    """The metric that ranks settings: validation accuracy, if images are held out, else test."""
    return shared_metrics(results)[0]


def shared_metrics(results: Sequence[Result]) -> list[str]:
    """The metrics that all results have, in the order in which they rank."""
    return [name for name in METRICS if all(name in result.values for result in results)]


def tied(best: Result, other: Result, metric: str) -> bool | None:
    """Whether chance alone can explain the difference of the means; None: not enough seeds."""
    errors = [result.spread(metric).standard_error for result in (best, other)]
    if None in errors:
        return None
    error = sum(error**2 for error in errors if error is not None) ** 0.5
    return best.spread(metric).mean - other.spread(metric).mean <= TIE * error


def format_results(results: Sequence[Result]) -> str:
    """A table, the best setting first, and which settings are tied with it."""
    return "\n".join((results_table(results).narrowed(WIDTH).text(), *verdicts(results)))


def results_table(results: Sequence[Result]) -> Table:
    """A row for each setting."""
    metric = ranked_by(results)
    fields = list(results[0].setting)
    metrics = shared_metrics(results)
    named, counted = bool(results[0].runs), results[0].params is not None
    rows = []
    for result in results:
        interval = result.spread(metric).interval()
        rows.append(
            (
                *((shortened(result.name, 60),) if named else ()),
                *(shortened(_rounded(value), 40) for value in result.setting.values()),
                *((f"{result.params:,}",) if counted else ()),
                str(len(result.seeds)),
                str(result.epochs),
                *(str(result.spread(name)) for name in metrics),
                "-" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}",
                f"{result.seconds:,.0f} s",
            )
        )
    header = (
        *(("runs",) if named else ()),
        *fields,
        *(("parameters",) if counted else ()),
        "n",
        "epochs",
        *(METRICS[name] for name in metrics),
        f"95% interval ({METRICS[metric]})",
        "time",
    )
    left = len(fields) + named
    return Table(header, rows, "l" * left + "r" * (len(header) - left))


def _rounded(value: str) -> str:
    """A number of many digits with six of them."""
    try:
        return value if len(value) <= 10 else f"{float(value):.6g}"
    except ValueError:
        return value


def verdicts(results: Sequence[Result]) -> list[str]:
    """What the table's numbers are, and which settings are tied with the first."""
    metric = ranked_by(results)
    lines = [
        "Mean and standard deviation (n - 1) after the last epoch; the interval is the mean's, by "
        "Student's t.",
    ]
    if len(results) > 1:
        ties = {other.name: tied(results[0], other, metric) for other in results[1:]}
        same = [name for name, is_tied in ties.items() if is_tied]
        if None in ties.values():
            lines.append("One seed of a setting cannot tell a difference from chance: train more.")
        elif same:
            lines.append(
                f"Tied with the first (within {TIE:g} standard errors): {'; '.join(same)}."
            )
        else:
            lines.append("No setting is tied with the first.")
        if metric == "test_accuracy":
            lines.append(
                "Ranked by test images: to choose a setting, hold images out instead "
                "(--config.validation_split=5000)."
            )
    return lines


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results for a JSON file."""
    return [
        {
            "setting": dict(result.setting),
            "seeds": list(result.seeds),
            "epochs": result.epochs,
            "seconds": result.seconds,
        }
        | ({"runs": list(result.runs), "parameters": result.params} if result.runs else {})
        | {
            name: {
                "values": list(values),
                "mean": result.spread(name).mean,
                "std": result.spread(name).std,
                "interval95": result.spread(name).interval(),
            }
            for name, values in result.values.items()
        }
        for result in results
    ]
