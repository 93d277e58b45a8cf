"""What is measured of the convolutions on this machine, and kept."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from flax_resnet.models.cpu import measure as module
from flax_resnet.models.cpu.conv import IMPLEMENTATIONS, Shape
from flax_resnet.models.cpu.measure import Timing, known, measure, time_shape

SHAPES = [
    Shape("float32", 3, 1, 1, 8, 8, 8, 8),
    Shape("float32", 1, 2, 0, 8, 8, 8, 16),
    Shape("bfloat16", 2, 1, 0, 9, 9, 3, 8),
]
KEY = f"2 of {SHAPES[0]}"


def test_what_is_measured_is_kept(tmp_path):
    assert known(SHAPES, 2, tmp_path) == {}
    found = measure(SHAPES, 2, tmp_path)
    assert set(found) == set(SHAPES)
    assert known(SHAPES, 2, tmp_path) == found
    more = Shape("float32", 3, 1, 1, 4, 4, 8, 8)
    assert more not in known([more], 2, tmp_path)
    measure([more], 2, tmp_path)
    assert set(known([*SHAPES, more], 2, tmp_path)) == {*SHAPES, more}
    assert known(SHAPES, 3, tmp_path) == {}  # of another batch
    for timings in found.values():
        assert "native" in timings
        assert all(t.seconds > 0 and t.compile_seconds > 0 for t in timings.values())


def test_each_implementation_that_computes_a_shape_is_timed():
    wide = Shape("float32", 3, 1, 1, 8, 8, 32, 32)
    assert set(time_shape(wide, 2, use_onednn=False)) == {"native", "winograd", "chunked"}
    assert set(time_shape(SHAPES[0], 2, use_onednn=False)) == {"native", "chunked"}
    assert set(time_shape(SHAPES[1], 2, use_onednn=False)) == {"native", "product"}
    assert set(time_shape(SHAPES[2], 2, use_onednn=False)) == {"native"}


def test_wrong_results_are_left_out(monkeypatch):
    def wrong(x, kernel, strides, padding):
        return IMPLEMENTATIONS["native"](x, kernel, strides, padding) * 1.01

    monkeypatch.setitem(module.IMPLEMENTATIONS, "chunked", wrong)
    assert set(time_shape(SHAPES[0], 2, use_onednn=False)) == {"native"}


def process(monkeypatch, *outcomes: int | dict[str, dict[str, list[float]]]) -> list[bool]:
    """Has the processes end with a code, or print an answer; returns whether each tries oneDNN."""
    tries, left = [], list(outcomes)

    def run(*_, input: str, **__):
        tries.append(json.loads(input)["use_onednn"])
        outcome = left.pop(0)
        if isinstance(outcome, int):
            return subprocess.CompletedProcess([], outcome, "", "")
        return subprocess.CompletedProcess([], 0, json.dumps(outcome), "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(module, "_is_x86", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    return tries


def test_where_onednn_crashes_it_is_left_out(tmp_path, monkeypatch):
    answer = {KEY: {"native": [1e-3, 0.1]}}
    tries = process(monkeypatch, -signal.SIGILL, answer)
    assert measure(SHAPES[:1], 2, tmp_path) == {SHAPES[0]: {"native": Timing(1e-3, 0.1)}}
    assert tries == [True, False]
    assert known(SHAPES[:1], 2, tmp_path)


def test_a_crash_without_it_is_an_answer_too(tmp_path, monkeypatch):
    process(monkeypatch, -signal.SIGSEGV, 1)
    assert measure(SHAPES[:1], 2, tmp_path) == {SHAPES[0]: {}}
    assert known(SHAPES[:1], 2, tmp_path) == {SHAPES[0]: {}}


def test_what_is_stopped_leaves_no_answer(tmp_path, monkeypatch):
    process(monkeypatch, -signal.SIGINT)
    assert measure(SHAPES[:1], 2, tmp_path) == {}
    assert not any(files for _, _, files in os.walk(tmp_path))


def test_what_takes_too_long_leaves_no_answer(tmp_path, monkeypatch):
    def run(*_, timeout: float, **__):
        raise subprocess.TimeoutExpired("", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert measure(SHAPES[:1], 2, tmp_path) == {}
    assert known(SHAPES[:1], 2, tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"SHAPE": 3}', '{"SHAPE": {"native": []}}'])
def test_a_damaged_file_is_measured_again(text, tmp_path, monkeypatch):
    answer = {KEY: {"native": [1e-3, 0.1]}}
    process(monkeypatch, answer, answer)
    measure(SHAPES[:1], 2, tmp_path)
    (file,) = Path(tmp_path, "convolutions").iterdir()
    file.write_text(text.replace("SHAPE", KEY))
    assert known(SHAPES[:1], 2, tmp_path) == {}
    assert measure(SHAPES[:1], 2, tmp_path)
    assert known(SHAPES[:1], 2, tmp_path)
