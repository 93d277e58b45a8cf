import itertools
import threading
import time

import numpy as np
import pytest

from flax_resnet.data.batches import TrainBatches, eval_chunks, prefetch
from flax_resnet.data.transforms import build_transforms


def make_batches(
    num: int = 50, batch_size: int = 16, drop_last: bool = False, steps_per_chunk: int = 1,
    seed: int = 0, crop_padding: int = 0,
) -> TrainBatches:  # fmt: skip
    # Each image's pixels are its number, so a batch tells which images it holds.
    images = np.broadcast_to(np.arange(num, dtype=np.uint8)[:, None, None, None], (num, 4, 4, 3))
    return TrainBatches(
        np.ascontiguousarray(images),
        np.arange(num, dtype=np.int32),
        batch_size=batch_size,
        seed=seed,
        transforms=build_transforms(crop_padding=crop_padding, flip=True),
        drop_last=drop_last,
        steps_per_chunk=steps_per_chunk,
    )


def in_order(chunks) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of chunks, one after another."""
    chunks = list(chunks)
    return (
        np.concatenate([chunk.images.reshape(-1, 4, 4, 3) for chunk in chunks]),
        np.concatenate([chunk.labels.ravel() for chunk in chunks]),
    )


def assert_same(one, other) -> None:
    for a, b in zip(in_order(one), in_order(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_of_the_paper_is_390_batches_of_128_and_one_of_80():
    batches = TrainBatches(
        np.zeros((50_000, 1, 1, 3), np.uint8), np.zeros(50_000, np.int32), batch_size=128, seed=0,
        transforms=(), drop_last=False,
    )  # fmt: skip
    sizes = [len(chunk.labels[0]) for chunk in batches.epoch(0)]
    assert sizes == [128] * 390 + [80]
    assert batches.steps_per_epoch == 391 and batches.sizes == [128, 80]


@pytest.mark.parametrize("num, batch_size", [(50, 16), (48, 16), (10, 16), (50, 1), (50, 50)])
def test_an_epoch_holds_every_image_once_with_its_label(num, batch_size):
    batches = make_batches(num, batch_size)
    chunks = list(batches.epoch(3))
    assert len(chunks) == batches.steps_per_epoch
    images, labels = in_order(chunks)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert sorted(labels) == list(range(num))
    assert {c.labels.shape[1] for c in chunks} == set(batches.sizes)
    assert max(c.labels.shape[1] for c in chunks[:-1] or chunks) <= batch_size


def test_drop_last_drops_other_images_in_every_epoch():
    batches = make_batches(50, 16, drop_last=True)
    held = [set(in_order(batches.epoch(epoch))[1].tolist()) for epoch in range(3)]
    assert [len(labels) for labels in held] == [48] * 3
    assert len(set(map(frozenset, held))) == 3


@pytest.mark.parametrize("batch_size, steps_per_chunk", [(1, 1), (7, 1), (7, 3), (50, 1)])
def test_an_epoch_does_not_depend_on_how_it_is_cut(batch_size, steps_per_chunk):
    cut = make_batches(50, batch_size, steps_per_chunk=steps_per_chunk, crop_padding=2)
    assert_same(cut.epoch(2), make_batches(crop_padding=2).epoch(2))


@pytest.mark.parametrize("steps_per_chunk", [1, 2, 3])
def test_an_epoch_resumed_at_any_step_has_the_same_batches(steps_per_chunk):
    whole = list(make_batches(crop_padding=2).epoch(5))
    for step in range(len(whole)):
        resumed = make_batches(steps_per_chunk=steps_per_chunk, crop_padding=2)
        assert_same(resumed.epoch(5, step), whole[step:])


def test_each_seed_and_epoch_has_an_order_of_its_own():
    orders = {
        tuple(in_order(make_batches(seed=seed).epoch(epoch))[1].tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_chunks_lie_on_a_grid_of_the_epoch():
    batches = make_batches(steps_per_chunk=2)  # steps of 16, 16, 16, 2
    assert batches.chunk_bounds() == [(0, 2), (2, 3), (3, 4)]
    assert batches.chunk_bounds(1) == [(1, 2), (2, 3), (3, 4)]
    assert batches.distinct_chunks() == [(0, 2), (2, 3), (3, 4)]
    assert make_batches(96, 16, steps_per_chunk=2).distinct_chunks() == [(4, 6)]
    assert [c.labels.shape for c in batches.epoch(1)] == [(2, 16), (1, 16), (1, 2)]


@pytest.mark.parametrize("steps_per_chunk", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 10, 64])
def test_evaluation_chunks_hold_every_image_once_in_one_shape(batch_size, steps_per_chunk):
    images = np.zeros((20, 2, 2, 3), np.uint8)
    labels = np.arange(20, dtype=np.int32)
    chunks = list(eval_chunks(images, labels, batch_size, steps_per_chunk))
    assert {c.images.shape for c in chunks} == {(steps_per_chunk, batch_size, 2, 2, 3)}
    counted = np.concatenate([c.labels[c.mask] for c in chunks])
    np.testing.assert_array_equal(counted, labels)


def test_prefetch_keeps_order_and_runs_ahead():
    made = []

    def make():
        for i in range(6):
            made.append(i)
            yield i

    consumer = prefetch(make, depth=3)
    assert next(consumer) == 0
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:  # 1 taken, 3 queued, 1 in hand
        time.sleep(0.01)
    assert made == [0, 1, 2, 3, 4]
    assert list(consumer) == [1, 2, 3, 4, 5]


def test_prefetch_raises_the_threads_exception():
    def make():
        yield 1
        raise ValueError("bad image")

    consumer = prefetch(make)
    assert next(consumer) == 1
    with pytest.raises(ValueError, match="bad image"):
        next(consumer)


def test_prefetch_left_early_ends_its_thread():
    consumer = prefetch(itertools.count, depth=2)
    next(consumer)
    consumer.close()
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_many_images_by_several_threads_are_what_their_batches_are(monkeypatch):
    monkeypatch.setattr("flax_resnet.data.batches.usable_cores", lambda: 3)
    images = np.random.RandomState(0).randint(0, 256, (3500, 8, 8, 3)).astype(np.uint8)
    options = {"trivial_augment": True, "color_jitter": (0.3, 0.3, 0.3), "cutout": 4}
    batches = TrainBatches(
        images, np.zeros(3500, np.int32), batch_size=350, seed=0, drop_last=False,
        transforms=build_transforms(crop_padding=2, flip=True, **options), steps_per_chunk=10,
    )  # fmt: skip
    threads = set()
    batch = batches._table.batch
    monkeypatch.setattr(
        batches._table, "batch", lambda *a: threads.add(threading.current_thread()) or batch(*a)
    )
    plan = batches.plan(0)
    whole = batches.chunk(plan, 0, 10)
    assert threads and threading.main_thread() not in threads
    np.testing.assert_array_equal(
        whole.images, np.concatenate([batches.chunk(plan, i, i + 1).images for i in range(10)])
    )
