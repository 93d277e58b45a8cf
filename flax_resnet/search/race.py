"""Short trainings choose among designs: successive halving.

All designs train a little, the better half goes on from where it stopped, and so on (Jamieson and
Talwalkar 2016, "Non-stochastic best arm identification", algorithm 1). What ranks them is the
accuracy on held-out training images: the test images choose nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet.data.load import load_dataset
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.search.config import with_design
from flax_resnet.search.space import Candidate, ImageShape, describe, listed, shortened
from flax_resnet.training.loop import train_and_evaluate

Log = Callable[[str], None]

VALIDATION_SHARE = 0.1  # of the training images, where the config holds none out


@dataclasses.dataclass(frozen=True)
class Round:
    """Attributes: how many designs train, and the epoch that they reach."""

    num_designs: int
    until_epoch: int


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a design stands.

    Attributes:
      row: its number in the table it comes from.
      candidate: the design.
      workdir: folder of its run.
      epoch: the last epoch that counts.
      val_accuracy: the highest after any epoch up to there, 0-1.
      seconds: training time up to there.
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
      signum: the signal that stopped it; None: it is finished.
      standings: best first: the last round's, then those left behind by the round before, ...
    """

    signum: int | None
    standings: tuple[Standing, ...]


def plan_rounds(num_designs: int, num_epochs: int) -> list[Round]:
    """Halves the designs (rounded up) and doubles the epochs until two or fewer are left.

    Raises:
      UserError: too few epochs for so many rounds.
    """
    sizes = [num_designs]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / 2))
    last = len(sizes) - 1
    if num_epochs < 2**last:
        raise UserError(
            f"{num_designs} designs need {len(sizes)} rounds, each of twice the epochs: "
            f"--epochs is {num_epochs}, and must be at least {2**last}"
        )
    return [Round(size, num_epochs // 2 ** (last - i)) for i, size in enumerate(sizes)]


def contenders_config(
    config: ConfigDict, num_designs: int, num_classes: int, image_shape: ImageShape
) -> ConfigDict:
    """The config that all contenders share: with a validation split, without a reference log.

    Args:
      config: the recipe, with the race's number of epochs and of images.
      num_designs: how many will race.
      num_classes: that the designs were counted for.
      image_shape: (height, width, channels), likewise.

    Raises:
      UserError: too few epochs, or the images are not those that the designs were counted for.
    """
    plan_rounds(num_designs, config.num_epochs)  # before the images, whose loading may take long
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
    )
    found = dataset.num_classes, dataset.image_shape
    if found != (num_classes, image_shape):
        raise UserError(
            f"config.dataset={config.dataset!r} has {found[0]} classes of {found[1]} images, and "
            f"the designs are counted for {num_classes} of {image_shape}: give --classes and "
            "--image-size"
        )
    changed = config.copy_and_resolve_references()
    changed.reference_log = None
    if not changed.validation_split:
        num_images = len(dataset.first(config.train_images, None).train_labels)
        changed.validation_split = round(VALIDATION_SHARE * num_images)
    return changed


def race(
    candidates: Sequence[tuple[int, Candidate]],
    config: ConfigDict,
    out: Path,
    *,
    devices: Sequence[Any] | None = None,
    log: Log = print,
) -> RaceOutcome:
    """Trains the designs round by round; again after a stop, it goes on where it was.

    Args:
      candidates: (row number, design), the likeliest first: equals keep their order.
      config: of all contenders but for the design; with a validation split.
      out: gets a run folder for each design.
      devices: jax.Devices to share each batch; None: all local ones.
      log: takes the lines for people.

    Raises:
      UserError: anything the user can put right.
    """
    rounds = plan_rounds(len(candidates), config.num_epochs)
    running, behind = list(candidates), []
    standings: list[Standing] = []
    with StopRequest().listening() as stop:
        for number, this_round in enumerate(rounds, start=1):
            running = running[: this_round.num_designs]
            log(
                f"round {number} of {len(rounds)}: {len(running)} designs up to epoch "
                f"{this_round.until_epoch} of {config.num_epochs}"
            )
            standings = []
            for row, candidate in running:
                log(f"row {row}: {describe(candidate.design)}")
                workdir = out / folder_name(candidate)
                train_and_evaluate(
                    with_design(config, candidate.design),
                    workdir,
                    devices=devices,
                    until_epoch=this_round.until_epoch,
                    stop=stop,
                )
                if stop.signum is not None:
                    return RaceOutcome(stop.signum, ())
                standings.append(_standing(row, candidate, workdir, this_round.until_epoch))
            standings.sort(key=lambda standing: -standing.val_accuracy)  # stable
            running = [(standing.row, standing.candidate) for standing in standings]
            if number < len(rounds):
                left = rounds[number].num_designs
                behind = standings[left:] + behind
                log(format_standings(standings, config.validation_split))
    return RaceOutcome(None, tuple(standings + behind))


def folder_name(candidate: Candidate) -> str:
    """Such as b4-4-3_c64-128-256_f3_k1_p0: a design's run is found again by it."""
    design = candidate.design
    parts = {
        "b": listed(design.stage_sizes),
        "c": listed(design.stage_channels),
        "f": shortened(design.kernel_sizes),
        "k": shortened(design.shortcut_kernels),
        "p": str(design.pool_size or 0),
    }
    kinds = [kind for kind in (design.block, design.shortcut) if kind not in _USUAL_KINDS]
    return "_".join([*(k + v.replace(",", "-") for k, v in parts.items()), *kinds])


_USUAL_KINDS = ("basic", "projection")


def format_standings(standings: Sequence[Standing], num_images: int) -> str:
    """A line a design, best first, and how far chance alone can carry them apart."""
    lines = [f"{'place':>5}  {'row':>4}  {'validation':>10}  {'epoch':>5}  {'time':>8}  design"]
    for place, standing in enumerate(standings, start=1):
        lines.append(
            f"{place:>5}  {standing.row:>4}  {standing.val_accuracy:>10.2%}  "
            f"{standing.epoch:>5}  {standing.seconds:>6.0f} s  "
            f"{describe(standing.candidate.design)}; {standing.candidate.params:,} parameters"
        )
    best = standings[0].val_accuracy
    # The standard error of a share p of n images.
    error = math.sqrt(best * (1 - best) / num_images)
    lines.append(
        f"standard error of an accuracy over {num_images:,} validation images: {100 * error:.2f} "
        "points, the chance of initial weights and order not included"
    )
    return "\n".join(lines)


def _standing(row: int, candidate: Candidate, workdir: Path, epoch: int) -> Standing:
    # A run may be further than this round, from an earlier race: what comes later does not count.
    rows = [r for r in read_metrics(RunFolder(workdir).metrics_file) if r["epoch"] <= epoch]
    return Standing(
        row,
        candidate,
        workdir,
        epoch=epoch,
        val_accuracy=max(r["val_accuracy"] for r in rows),
        seconds=sum(r["seconds"] for r in rows),
    )
