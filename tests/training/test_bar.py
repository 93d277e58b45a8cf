import io
import sys

import jax.numpy as jnp

from flax_resnet.engine.state import MetricSums
from flax_resnet.training import bar as progress
from flax_resnet.training.bar import EpochProgress


def sums(batches: int) -> MetricSums:
    return MetricSums(
        jnp.asarray(0.5 * batches), jnp.asarray(batches), jnp.asarray(3 * batches),
        jnp.asarray(4 * batches), jnp.asarray(0),
    )  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_are_plain_lines_now_and_then(monkeypatch, log_lines):
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = EpochProgress("epoch 1/2", total_steps=9, first_step=0, first_images=0)
    for step in (1, 2):
        shown.note(step, sums(step))
    shown.close()
    assert log_lines[-1].startswith("epoch 1/2: step 2/9, ")
    assert "loss 0.5000, accuracy 75.00%" in log_lines[-1]


def test_the_device_is_looked_at_twice_a_second_at_most(log_lines):
    shown = EpochProgress("epoch 1/2", total_steps=9, first_step=0, first_images=0)
    for step in range(1, 1000):
        shown.note(step, sums(1))
    shown.close()
    assert log_lines == []


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    shown = EpochProgress("epoch 1/2", total_steps=4, first_step=0, first_images=0)
    shown.note(2, sums(2))
    shown.close()
    text = terminal.getvalue()
    assert "epoch 1/2  50%" in text and "2/4" in text and "accuracy 75.00%" in text
