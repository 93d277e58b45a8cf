"""Successive halving with a stub in place of training; test_command.py has one real race."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from flax_resnet.config.load import load_config
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError
from flax_resnet.process.signals import StopRequest
from flax_resnet.search.race import (
    RaceOutcome,
    Round,
    Standing,
    contenders_config,
    folder_name,
    format_standings,
    plan_rounds,
    race,
    seconds_left,
    ties,
)
from flax_resnet.search.space import PAPER_DESIGN, Space, candidate, explore
from tests.conftest import ROOT, tiny_config

SPACE = Space((2,), (1,), (2, 4, 6), shortcut_kernels=(1,))
CONTENDERS = list(enumerate(explore(SPACE, 10_000), start=1))
SHAPE = (32, 32, 3)
ROW = {"step": 7, "learning_rate": 0.1, "seconds": 1.0, "images_per_second": 80.0}
ROW |= {
    f"{split}_{metric}": 0.5
    for split in ("train", "val", "test")
    for metric in ("loss", "accuracy")
}
# Validation accuracies after epochs 1 to 3, by channels of the first stage.
ACCURACIES = {6: [0.1, 0.9, 0.9], 4: [0.2, 0.5, 0.4], 2: [0.3, 0.6, 0.6]}


class Stub:
    """Resumes a run as train_and_evaluate does, with ACCURACIES.

    Attributes:
      calls: (channels, until_epoch) of each call.
      stop_after: send SIGINT after so many epochs.
    """

    def __init__(self, stop_after: int = 1000) -> None:
        self.calls: list[tuple[int, int]] = []
        self.stop_after = stop_after

    def __call__(
        self, config: ConfigDict, workdir: Path, *, until_epoch: int, stop: StopRequest, **_: Any
    ) -> None:
        channels = config.design.stage_channels[0]
        self.calls.append((channels, until_epoch))
        workdir.mkdir(parents=True, exist_ok=True)
        file = workdir / "metrics.jsonl"
        done = len(file.read_text().splitlines()) if file.exists() else 0
        with stop.saving_first():
            for epoch in range(done + 1, until_epoch + 1):
                row = ROW | {"epoch": epoch, "val_accuracy": ACCURACIES[channels][epoch - 1]}
                with open(file, "a") as lines:
                    lines.write(json.dumps(row) + "\n")
                self.stop_after -= 1
                if self.stop_after == 0:
                    os.kill(os.getpid(), signal.SIGINT)
                if stop:
                    return


class Diverging(Stub):
    """As its base, but for designs whose first stage has these channels: not finite."""

    def __init__(self, *channels: int, until: int = 0) -> None:
        super().__init__()
        self.channels, self.until = channels, until

    def __call__(
        self, config: ConfigDict, workdir: Path, *, until_epoch: int, stop: StopRequest, **_: Any
    ) -> None:
        if config.design.stage_channels[0] not in self.channels:
            return super().__call__(config, workdir, until_epoch=until_epoch, stop=stop)
        if self.until:
            super().__call__(config, workdir, until_epoch=self.until, stop=stop)
        raise UserError("step 3: the loss is NaN", code="not_finite")


def race_stub(out: Path, stub: Stub) -> RaceOutcome:
    return race(CONTENDERS, tiny_config(num_epochs=3, validation_split=100), out, train=stub)


def result(row: int, accuracy: float, epoch: int = 3) -> Standing:
    return Standing(row, CONTENDERS[0][1], Path(), epoch, accuracy, 1.0)


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
    plan_rounds(8, 4)
    with pytest.raises(UserError) as caught:
        plan_rounds(8, 3)
    assert caught.value.field == "--epochs"


def test_the_better_half_resumes_and_its_best_epoch_ranks_it(tmp_path):
    stub = Stub()
    outcome = race_stub(tmp_path, stub)
    assert stub.calls == [(6, 1), (4, 1), (2, 1), (2, 3), (4, 3)]
    assert outcome.signum is None
    places = [(s.candidate.design.stage_channels[0], s.epoch) for s in outcome.standings]
    assert places == [(2, 3), (4, 3), (6, 1)]
    assert [s.val_accuracy for s in outcome.standings] == [0.6, 0.5, 0.1]
    assert [s.seconds for s in outcome.standings] == [3.0, 3.0, 1.0]


def test_epochs_beyond_a_round_do_not_count(tmp_path):
    race_stub(tmp_path, Stub())
    Stub()(
        tiny_config(**{"design.stage_channels": (6, 12)}),
        tmp_path / folder_name(CONTENDERS[0][1]),
        until_epoch=3,
        stop=StopRequest(),
    )
    outcome = race_stub(tmp_path, Stub())
    assert [s.val_accuracy for s in outcome.standings] == [0.6, 0.5, 0.1]


@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
def test_a_stopped_race_resumes_to_the_same_standings(stop_after, tmp_path):
    whole = race_stub(tmp_path / "whole", Stub()).standings
    stopped = race_stub(tmp_path / "stopped", Stub(stop_after))
    assert stopped == RaceOutcome(signal.SIGINT, ())
    resumed = race_stub(tmp_path / "stopped", Stub()).standings
    assert [dataclasses.replace(s, workdir=Path()) for s in resumed] == [
        dataclasses.replace(s, workdir=Path()) for s in whole
    ]


def test_equals_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setitem(ACCURACIES, 2, ACCURACIES[4])
    outcome = race_stub(tmp_path, Stub())
    assert [s.candidate.design.stage_channels[0] for s in outcome.standings] == [4, 2, 6]


@pytest.mark.parametrize(("until", "places"), [(0, [6, 4]), (1, [4, 6])])
def test_a_design_that_diverges_is_out_and_the_others_go_on(until, places, tmp_path, log_lines):
    """In the first epoch, or in the second round."""
    outcome = race_stub(tmp_path, Diverging(2, until=until))
    assert [s.candidate.design.stage_channels[0] for s in outcome.standings] == places
    assert any("row 3 ends here" in line for line in log_lines)


def test_a_race_that_all_designs_lose_is_an_error(tmp_path):
    with pytest.raises(UserError, match="every design has diverged"):
        race_stub(tmp_path, Diverging(2, 4, 6))


def test_results_within_two_standard_errors_of_their_difference_tie():
    # 50%, 2,500 images: each 1.00 points, the difference sqrt(2) points.
    best = result(1, 0.5)
    assert ties([best, result(2, 0.4718)], 2500) == [result(2, 0.4718)]
    assert ties([best, result(2, 0.4716)], 2500) == []
    assert ties([best, result(2, 0.499, epoch=1)], 2500) == []  # not as far
    assert ties([result(1, 1.0), result(2, 1.0)], 100) == [result(2, 1.0)]
    assert ties([best], 100) == []


def test_the_time_left_counts_the_epochs_of_the_rounds_to_come():
    rounds = plan_rounds(4, 4)  # 4 designs for 2 epochs, then 2 of them for 2 more
    one = dataclasses.replace(result(1, 0.5, epoch=2), seconds=30.0)
    assert seconds_left(rounds, [one]) == (3 * 2 + 2 * 2) * 15.0
    assert seconds_left(rounds, [one] * 2 + [dataclasses.replace(one, epoch=4)] * 2) == 0


def test_standings_name_the_ties():
    text = format_standings([result(4, 0.5), result(7, 0.49), result(9, 0.1)], 2500)
    header, first, *_, last = text.splitlines()
    assert header.split()[:3] == ["place", "row", "validation"]
    assert first.split()[:3] == ["1", "4", "50.00%"]
    assert "tied with row 4: 7 " in last and "2,500" in last
    assert "No row" in format_standings([result(4, 0.5), result(9, 0.1)], 2500)


def test_a_tenth_of_the_training_images_is_held_out_unless_the_config_says():
    assert contenders_config(tiny_config(), 2, 10, SHAPE).validation_split == 22
    assert contenders_config(tiny_config(train_images=10_000), 2, 10, SHAPE).validation_split == 144
    assert contenders_config(tiny_config(train_images=4), 2, 10, SHAPE).validation_split == 1
    assert contenders_config(tiny_config(validation_split=33), 2, 10, SHAPE).validation_split == 33


def test_images_that_the_designs_are_not_counted_for_are_refused():
    with pytest.raises(UserError) as caught:
        contenders_config(tiny_config(), 2, 7, SHAPE)
    assert (caught.value.code, caught.value.field) == ("conflict", "config.dataset")


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
