"""What the cost model counts is what XLA counts, and its formulas give hand numbers."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks import cost_model
from benchmarks.cost_model import (
    DEVICES,
    Operation,
    all_reduce_seconds,
    all_reduces,
    compute_parts,
    operations,
    predict,
)
from benchmarks.throughput import config_file, random_chunk
from flax_resnet.config.build import abstract_checkpoint, build_train_step
from flax_resnet.config.load import design_of, load_config
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.models.cost import Convolution, convolutions
from flax_resnet.process.errors import UserError

TINY = ["--config.design.stage_channels=(4,8)", "--config.batch_size=8"]


def abstract_step(config, side, batch):
    """A training step, and the shapes of what it takes."""
    shape = (side, side, 3)
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return build_train_step(config, 10, 1), abstract_checkpoint(config, 10, shape), (images, labels)


def inside(layer: Convolution) -> float:
    """The share of a convolution's multiply-adds that is not by zeros of the padding."""
    share, size = 1.0, layer.kernel_size
    for new_side in layer.outputs:
        side = new_side * layer.strides
        places = [
            0 <= layer.strides * i + tap - size // 2 < side
            for i in range(new_side)
            for tap in range(size)
        ]
        share *= sum(places) / len(places)
    return share


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet20", 32), ("best_5m", 32), ("imagenet_resnet50", 64)],
)
def test_flops_are_those_that_xla_counts(name, side):
    config, batch = load_config(name), 16
    step, (state, sums), images_and_labels = abstract_step(config, side, batch)
    lowered = jax.jit(step.__call__).lower(state, sums, images_and_labels)
    found = lowered.cost_analysis()
    assert found is not None
    counted = sum(operation.flops for operation in operations(config, side, 10, batch))
    # XLA leaves out the padding, and counts what BatchNorm and the optimizer compute, too.
    layers = convolutions(design_of(config), (side, side, 3))
    padding = sum(
        (1 - inside(layer)) * 2 * batch * layer.multiply_adds * (2 if index == 0 else 3)
        for index, layer in enumerate(layers)
    )
    assert found["flops"] == pytest.approx(counted - padding, rel=0.05)


@pytest.mark.parametrize("batch_norm", ["global", "device"])
def test_all_reduces_are_those_of_the_compiled_step(batch_norm):
    config = load_config(config_file("tiny"), [*TINY, f"--config.batch_norm={batch_norm}"])
    step, carry, _ = abstract_step(config, 8, 8)
    parallel = DataParallel(devices=jax.devices(), batch_norm=batch_norm)
    assert parallel.num_devices == 8
    chunk = parallel.place(*random_chunk(1, 8, (8, 8, 3)))
    lowered = parallel.compile_train(step).lower(*carry, chunk)
    text: Any = lowered.compile().as_text()
    lines = text.splitlines()
    outputs = [line.split(" all-reduce(")[0] for line in lines if " all-reduce(" in line]
    sizes = [
        sum(4 * math.prod(int(side) for side in shape.split(",") if side) for shape in shapes)
        for shapes in (re.findall(r"[fsu]32\[([\d,]*)\]", output) for output in outputs)
    ]
    expected = [size for number, size in all_reduces(config, 8, 10) for _ in range(number)]
    # The biases of a block's last BatchNorm and of its shortcut's have the same gradient: where
    # each device computes its own, XLA adds it up once.
    assert sum(sizes) == pytest.approx(sum(expected), rel=0 if batch_norm == "global" else 0.01)
    assert abs(len(sizes) - len(expected)) <= 1  # a metric goes alone


def test_a_ring_sends_all_but_a_share_twice():
    device = dataclasses.replace(
        DEVICES["h100"], per_host=4, link=100.0, link_seconds=1.0, network=10.0, network_seconds=3.0
    )
    assert all_reduce_seconds(device, 1, 800.0) == 0
    assert all_reduce_seconds(device, 4, 800.0) == pytest.approx(1 + 2 * 3 / 4 * 800 / 100)
    # Two hosts: each device's quarter goes over its own network link.
    seconds = all_reduce_seconds(device, 8, 800.0)
    assert seconds == pytest.approx(1 + 12 + 3 + 2 * 1 / 2 * 200 / 10)


def test_an_operation_takes_the_longer_of_its_flops_and_bytes():
    device = dataclasses.replace(
        DEVICES["h100"],
        rates={"float32": 10.0}, bandwidth=4.0, overlapping_pool=3.0, operation_seconds=0.5,
    )  # fmt: skip
    work = [
        Operation("kernel gradient", 20.0, 4.0, backward=True),
        Operation("forward", 20.0, 16.0),
        Operation("overlapping pool", 0.0, 8.0),
    ]
    parts = compute_parts(work, device, "float32")
    assert parts == {"arithmetic": 2.0, "memory": 4.0 + 6.0, "starts": 1.5, "backward": 2.0}


def test_what_binds_changes_with_the_machine(capsys):
    run = ["--config.batch_size=1024", "--config.dtype=bfloat16", "--devices", "1", "64"]
    one, many = cost_model.main(run)
    assert one["binds"] == "memory" and many["binds"] == "all-reduce"
    assert 1 < many["images/s"] / one["images/s"] < 64
    assert "input cores a device" in capsys.readouterr().out
    config = load_config("imagenet_resnet50", ["--config.batch_size=1024"])
    slow = dataclasses.replace(DEVICES["h100"], cores=0.5)
    found = predict(config, 224, 1000, slow, 1, streamed=True)
    assert found.binds == "input"
    assert found.step == pytest.approx(1024 / (0.5 * cost_model.STREAMED_IMAGES))


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UserError) as caught:
        predict(load_config("imagenet_resnet50"), 224, 1000, DEVICES["h100"], 48, streamed=True)
    assert caught.value.field == "config.batch_size"
