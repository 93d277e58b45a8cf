"""Successive halving: choosing among designs by short runs.

All designs train for a few epochs, the better half resumes, and so on (Jamieson and Talwalkar 2016,
"Non-stochastic best arm identification", algorithm 1). They are ranked by accuracy on held-out
training images; the test images select nothing.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.data.load import load_dataset
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.report.table import Table
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_epochs
from flax_resnet.search.config import with_design
from flax_resnet.search.space import Candidate, ImageShape, describe, listed, per_stage
from flax_resnet.training.loop import going_on_after_divergence, train_and_evaluate

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1  # of the training images, if the config holds none out
TIE = 2.0  # standard errors of a difference that is a tie: about 95% confidence


@dataclasses.dataclass(frozen=True)
class Round:
    """How many designs train, and up to which epoch."""

    num_designs: int
    until_epoch: int


@dataclasses.dataclass(frozen=True)
class Standing:
    """A design's result.

    Attributes:
      row: its number in the table of designs.
      candidate: the design.
      workdir: folder of its run.
      epoch: the last epoch that counts.
      val_accuracy: the highest after any epoch up to `epoch`, 0-1.
      seconds: training time up to `epoch`.
    """

    row: int
    candidate: Candidate
    workdir: Path
    epoch: int
    val_accuracy: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class RaceOutcome:
    """How a race ended.

    Attributes:
      signum: the signal that stopped it; None: it finished.
      standings: best first: the last round's, then those eliminated in the round before, ...
    """

    signum: int | None
    standings: tuple[Standing, ...]


def plan_rounds(num_designs: int, num_epochs: int) -> list[Round]:
    """Halves the designs (rounding up) and doubles the epochs until at most two are left.

    Raises:
      UserError: too few epochs for so many rounds.
    """
    sizes = [num_designs]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / 2))
    last = len(sizes) - 1
    if num_epochs < 2**last:
        raise UserError(
            f"{num_designs} designs race in {len(sizes)} rounds, each twice as long as the one "
            f"before: --epochs must be at least {2**last}, not {num_epochs}",
            field="--epochs",
        )
    return [Round(size, num_epochs // 2 ** (last - i)) for i, size in enumerate(sizes)]


def contenders_config(
    config: ConfigDict, num_designs: int, num_classes: int, image_shape: ImageShape
) -> ConfigDict:
    """The config shared by all designs of a race, with a validation split and no reference log.

    Args:
      config: the recipe, with the race's number of epochs and images.
      num_designs: how many will race.
      num_classes: what the designs' parameters were counted for.
      image_shape: (height, width, channels), likewise.

    Raises:
      UserError: too few epochs, or the data set has other classes or image shapes.
    """
    plan_rounds(num_designs, config.num_epochs)  # first: loading images may take long
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
        loading=config.data_loading,
    )
    found = dataset.num_classes, dataset.image_shape
    if found != (num_classes, image_shape):
        raise UserError(
            f"{config.dataset} has {found[0]} classes of images {found[1]}, but the designs are "
            f"for {num_classes} of {image_shape}: set --classes and --image-size",
            code="conflict",
            field="config.dataset",
        )
    changed = config.copy_and_resolve_references()
    changed.reference_log = None
    if not changed.validation_split:
        num_images = len(dataset.first(config.train_images, None).train_labels)
        changed.validation_split = max(1, round(VALIDATION_SHARE * num_images))
    return changed


def race(
    candidates: Sequence[tuple[int, Candidate]],
    config: ConfigDict,
    out: Path,
    *,
    devices: Sequence[Any] | None = None,
    train: Callable[..., Any] = train_and_evaluate,
) -> RaceOutcome:
    """Trains the designs round by round; called again after a stop, it resumes.

    A design whose loss is not finite is out, with a line; the others go on.

    Args:
      candidates: (row number, design); the order breaks ties.
      config: as from contenders_config.
      out: gets a run folder for each design.
      devices: jax.Devices to share each batch; None: all local ones.
      train: trains one run, with the arguments of train_and_evaluate.

    Raises:
      UserError: a run cannot be trained, or all diverge.
    """
    rounds = plan_rounds(len(candidates), config.num_epochs)
    running, behind = list(candidates), []
    results: dict[Path, Standing] = {}
    standings: list[Standing] = []
    stop = StopRequest(listens=True)
    for number, this_round in enumerate(rounds, start=1):
        running = running[: this_round.num_designs]
        logger.info(
            "round %d of %d: %d designs up to epoch %d of %d",
            number,
            len(rounds),
            len(running),
            this_round.until_epoch,
            config.num_epochs,
        )
        standings = []
        for row, candidate in running:
            logger.info("row %d: %s", row, describe(candidate.design))
            workdir = out / folder_name(candidate)
            with going_on_after_divergence(f"row {row}"):
                train(
                    with_design(config, candidate.design),
                    workdir,
                    devices=devices,
                    until_epoch=this_round.until_epoch,
                    stop=stop,
                )
            if stop.signum is not None:
                return RaceOutcome(stop.signum, ())
            standing = _standing(row, candidate, workdir, this_round.until_epoch)
            if standing is None:
                continue
            standings.append(standing)
            results[workdir] = standing
            if left := seconds_left(rounds, list(results.values())):
                logger.info("about %.0f minutes of the race left", math.ceil(left / 60))
        if not standings:
            break
        standings.sort(key=lambda standing: -standing.val_accuracy)  # stable
        running = [(standing.row, standing.candidate) for standing in standings]
        if number < len(rounds):
            left = rounds[number].num_designs
            behind = standings[left:] + behind
            logger.info("%s", format_standings(standings, config.validation_split))
    if not standings + behind:
        raise UserError(
            "every design has diverged: lower config.learning_rate",
            code="not_finite",
            field="config.learning_rate",
        )
    return RaceOutcome(None, tuple(standings + behind))


def seconds_left(rounds: Sequence[Round], results: Sequence[Standing]) -> float:
    """Training time left in a race, if its epochs take as long as those so far on average."""
    ends = [this.until_epoch for this in rounds]
    epochs = sum(
        this.num_designs * (end - start)
        for this, start, end in zip(rounds, [0, *ends], ends, strict=False)
    )
    done = sum(result.epoch for result in results)
    return (epochs - done) * sum(result.seconds for result in results) / done


def folder_name(candidate: Candidate) -> str:
    """The same for the same design, so that its run can resume: b4-4-3_c64-128-256_f3_k1_p0."""
    design = candidate.design
    parts = {
        "b": listed(design.stage_sizes),
        "c": listed(design.stage_channels),
        "f": per_stage(design.kernel_sizes),
        "k": per_stage(design.shortcut_kernels),
        "p": str(design.pool_size or 0),
    }
    kinds = [kind for kind in (design.block, design.shortcut) if kind not in _USUAL_KINDS]
    return "_".join([*(k + v.replace(",", "-") for k, v in parts.items()), *kinds])


_USUAL_KINDS = ("basic", "projection")


def format_standings(standings: Sequence[Standing], num_images: int) -> str:
    """A table, best first, and whether the first place is decided.

    Args:
      standings: best first.
      num_images: of the validation split.
    """
    table = Table(
        ("place", "row", "validation", "epoch", "time", "design"),
        [
            (
                str(place),
                str(one.row),
                f"{one.val_accuracy:.2%}",
                str(one.epoch),
                f"{one.seconds:.0f} s",
                f"{describe(one.candidate.design)}; {one.candidate.params:,} parameters",
            )
            for place, one in enumerate(standings, start=1)
        ],
        "rrrrrl",
    )
    first, tied = standings[0].row, ", ".join(str(s.row) for s in ties(standings, num_images))
    verdict = f"Rows tied with row {first}: {tied}" if tied else f"No row is tied with row {first}"
    return (
        f"{table.text()}\n{verdict} (a tie: within {TIE:g} standard errors of the difference over "
        f"{num_images:,} validation images; one run each, so initialization and data order add to "
        "the error)."
    )


def ties(standings: Sequence[Standing], num_images: int) -> list[Standing]:
    """Those of the winner's epoch that chance alone can separate from it.

    The standard error is that of the difference of two binomial proportions over `num_images`
    images each, taken as independent.
    """
    best = standings[0]
    tied = []
    for one in standings[1:]:
        variances = (a * (1 - a) / num_images for a in (best.val_accuracy, one.val_accuracy))
        difference = best.val_accuracy - one.val_accuracy
        if one.epoch == best.epoch and difference <= TIE * math.sqrt(sum(variances)):
            tied.append(one)
    return tied


def _standing(row: int, candidate: Candidate, workdir: Path, epoch: int) -> Standing | None:
    """How a design stands after an epoch; None: it has diverged before."""
    # A run may be further along, from an earlier race: its later epochs do not count.
    rows = [r for r in read_epochs(RunFolder(workdir)) if r["epoch"] <= epoch]
    if len(rows) < epoch:
        return None
    return Standing(
        row,
        candidate,
        workdir,
        epoch=epoch,
        val_accuracy=max(r["val_accuracy"] for r in rows),
        seconds=sum(r["seconds"] for r in rows),
    )
