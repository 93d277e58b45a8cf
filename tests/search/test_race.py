"""Successive halving on real digits, with networks of a few channels."""

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flax_resnet.config.load import load_config
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError
from flax_resnet.runs.metrics_log import Row, read_metrics
from flax_resnet.search.race import (
    RaceOutcome,
    Round,
    contenders_config,
    folder_name,
    format_standings,
    plan_rounds,
    race,
)
from flax_resnet.search.space import PAPER_DESIGN, Space, candidate, explore
from tests.conftest import ROOT, tiny_config

SPACE = Space((2,), (1,), (2, 4, 6), shortcut_kernels=(1,))
CONTENDERS = list(enumerate(explore(SPACE, 10_000), start=1))
SHAPE = (32, 32, 3)


def race_tiny(out: Path, devices: list, log=lambda line: None) -> RaceOutcome:
    config = contenders_config(
        tiny_config(num_epochs=3, learning_rate=0.01), len(CONTENDERS), 10, SHAPE
    )
    return race(CONTENDERS, config, out, devices=devices, log=log)


@pytest.fixture(scope="module")
def raced(tmp_path_factory, one_device) -> tuple[Path, RaceOutcome]:
    """The folder and the outcome of a finished race; not to be changed."""
    out = tmp_path_factory.mktemp("race")
    return out, race_tiny(out, one_device)


def rows_of(workdir: Path) -> list[Row]:
    return read_metrics(workdir / "metrics.jsonl")


def without_clock(outcome: RaceOutcome) -> list:
    return [dataclasses.replace(s, seconds=0.0, workdir=Path()) for s in outcome.standings]


@pytest.mark.parametrize(
    ("designs", "rounds"),
    [
        (1, [(1, 8)]),
        (2, [(2, 8)]),
        (3, [(3, 4), (2, 8)]),
        (4, [(4, 4), (2, 8)]),
        (5, [(5, 2), (3, 4), (2, 8)]),
        (8, [(8, 2), (4, 4), (2, 8)]),
        (16, [(16, 1), (8, 2), (4, 4), (2, 8)]),
    ],
)
def test_each_round_halves_the_designs_and_doubles_the_epochs(designs, rounds):
    assert plan_rounds(designs, 8) == [Round(*r) for r in rounds]


def test_too_few_epochs_for_the_rounds_are_refused():
    with pytest.raises(UserError, match="3 rounds.*--epochs is 3, and must be at least 4"):
        plan_rounds(8, 3)


def test_half_of_the_designs_go_on_from_where_they_stopped(raced):
    _, outcome = raced
    assert outcome.signum is None
    assert [s.epoch for s in outcome.standings] == [3, 3, 1]
    assert {s.row for s in outcome.standings} == {1, 2, 3}
    for standing in outcome.standings:
        assert [r["epoch"] for r in rows_of(standing.workdir)] == [*range(1, standing.epoch + 1)]


def test_the_best_validation_accuracy_ranks(raced):
    _, outcome = raced
    for standing in outcome.standings:
        assert standing.val_accuracy == max(r["val_accuracy"] for r in rows_of(standing.workdir))
    finalists, behind = outcome.standings[:2], outcome.standings[2:]
    for group in (finalists, behind):
        accuracies = [s.val_accuracy for s in group]
        assert accuracies == sorted(accuracies, reverse=True)
    first = {s.row: rows_of(s.workdir)[0]["val_accuracy"] for s in outcome.standings}
    assert min(first[s.row] for s in finalists) >= max(first[s.row] for s in behind)


@contextlib.contextmanager
def signal_at(line: str, signum: int) -> Iterator[None]:
    """Sends this process a signal when a run logs a line that starts so."""

    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(line):
                os.kill(os.getpid(), signum)

    logger, sender = logging.getLogger("flax_resnet"), Sender()
    logger.addHandler(sender)
    try:
        yield
    finally:
        logger.removeHandler(sender)


def test_a_race_stopped_in_its_second_round_resumes_to_the_same_standings(
    raced, tmp_path, one_device, log_lines
):
    with signal_at("epoch 2/3", signal.SIGINT):
        stopped = race_tiny(tmp_path, one_device)
    assert stopped == RaceOutcome(signal.SIGINT, ())
    assert max(len(rows_of(path.parent)) for path in tmp_path.glob("*/metrics.jsonl")) == 2
    assert without_clock(race_tiny(tmp_path, one_device)) == without_clock(raced[1])


def test_a_stop_at_the_end_of_a_run_ends_the_race_too(tmp_path, one_device, log_lines):
    with signal_at("epoch 1/3", signal.SIGTERM):
        assert race_tiny(tmp_path, one_device).signum == signal.SIGTERM
    assert len(list(tmp_path.iterdir())) == 1


def test_a_race_of_other_fields_in_the_same_folder_is_refused(raced, one_device):
    config = contenders_config(tiny_config(num_epochs=3), 3, 10, SHAPE)
    with pytest.raises(UserError, match="learning_rate=0.01, and now it is 0.001"):
        race(CONTENDERS, config, raced[0], devices=one_device)


def test_a_tenth_of_the_training_images_is_held_out_unless_the_config_says():
    assert contenders_config(tiny_config(), 2, 10, SHAPE).validation_split == 20
    assert contenders_config(tiny_config(train_images=10_000), 2, 10, SHAPE).validation_split == 144
    assert contenders_config(tiny_config(validation_split=33), 2, 10, SHAPE).validation_split == 33


def test_images_that_the_designs_are_not_counted_for_are_refused():
    with pytest.raises(UserError, match=r"has 10 classes .* counted for 7 .*--classes"):
        contenders_config(tiny_config(), 2, 7, SHAPE)


def test_standings_tell_how_far_chance_carries_them(raced):
    standing = dataclasses.replace(raced[1].standings[0], val_accuracy=0.5)
    lines = format_standings([standing], 2500).splitlines()
    assert "50.00%" in lines[1]
    assert "2,500 validation images: 1.00 points" in lines[2]


def test_designs_that_differ_have_folders_that_differ():
    designs = list(Space(mixed_kernels=True, kernel_sizes=(3, 5), blocks=(1,)).designs())
    designs += list(Space(blocks=(1,), block="bottleneck").designs())
    designs += list(Space(blocks=(1,), shortcut="pad").designs())
    names = [folder_name(candidate(design)) for design in designs]
    assert len(set(names)) == len(names)
    assert folder_name(candidate(PAPER_DESIGN)) == "b1-1-1-1_c64-128-256-512_f3_k1_p0"
    plain = Design((1,), (4,), (3,), (1,), 2, shortcut="none")
    assert folder_name(candidate(plain)) == "b1_c4_f3_k1_p2_none"


def test_contenders_keep_the_recipe():
    config = load_config(
        ROOT / "configs/revised.py", ["--config.num_epochs=4", "--config.dataset=digits"]
    )
    contenders = contenders_config(config, 2, 10, SHAPE)
    before, after = config.to_dict(), contenders.to_dict()
    changed = {field for field in before if before[field] != after[field]}
    assert changed == {"validation_split", "reference_log"}
