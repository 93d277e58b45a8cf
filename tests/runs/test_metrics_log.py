import json
import math
import threading

import pytest

from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Events, MetricsLog, read_metrics
from tests.training.test_loop import read_events


def row(epoch: int, **changes: float) -> dict[str, float]:
    figures = {"train_loss": 1 / epoch, "train_accuracy": 0.5, "test_loss": 2.0}
    figures |= {"test_accuracy": 0.4, "learning_rate": 0.1, "seconds": 2.5}
    return {"epoch": epoch, "step": 10 * epoch, "images_per_second": 80.0} | figures | changes


def test_lines_after_the_step_are_dropped_and_a_cut_line_too(tmp_path):
    run = RunFolder(tmp_path)
    log = MetricsLog(run, 0)
    for epoch in (1, 2, 3):
        log.append(row(epoch))
    with open(run.metrics_file, "a") as file:
        file.write('{"epoch": 4, "step": 4')
    assert [r["epoch"] for r in read_metrics(run.metrics_file)] == [1, 2, 3]

    log = MetricsLog(run, 20)
    assert [r["epoch"] for r in read_metrics(run.metrics_file)] == [1, 2]
    log.append(row(3, train_loss=0.25))
    assert read_metrics(run.metrics_file) == [row(1), row(2), row(3, train_loss=0.25)]


def test_events_are_written_without_a_thread_and_hide_later_ones(tmp_path):
    run = RunFolder(tmp_path)
    before = threading.active_count()
    for step in (0, 10):
        events = Events(run, step)
        events.add(row(step // 10 + 1))
        assert threading.active_count() == before
        events.close()
        (written,) = run.tensorboard.iterdir()
        _, start, *values = read_events(written)
        assert start.session_log.status == start.session_log.START and start.step == step + 1
        assert {event.step for event in values} == {step + 10}
        written.unlink()


def test_what_is_not_finite_becomes_null_so_that_every_line_is_json(tmp_path):
    run = RunFolder(tmp_path)
    log = MetricsLog(run, 0)
    log.append(row(1, train_loss=math.nan, test_loss=math.inf))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    values = json.loads(run.metrics_file.read_text(), parse_constant=refuse)
    assert values["train_loss"] is None and values["test_loss"] is None


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(row(1))}\n{{broken\n{json.dumps(row(3))}\n")
    with pytest.raises(UserError, match="line 2") as refused:
        read_metrics(path)
    assert (refused.value.code, refused.value.field) == ("corrupt", str(path))
