import itertools
import threading
import time

import numpy as np
import pytest

from flax_resnet.data.batches import TrainBatches, eval_chunks, prefetch
from flax_resnet.data.transforms import build_transforms


def make_batches(
    num: int = 50, batch_size: int = 16, drop_last: bool = False, steps_per_chunk: int = 1
) -> TrainBatches:
    # Each image's pixels are its number, so a batch tells which images it holds.
    images = np.broadcast_to(np.arange(num, dtype=np.uint8)[:, None, None, None], (num, 4, 4, 3))
    return TrainBatches(
        np.ascontiguousarray(images),
        np.arange(num, dtype=np.int32),
        batch_size=batch_size,
        seed=0,
        transforms=build_transforms(crop_padding=0, flip=True),
        drop_last=drop_last,
        steps_per_chunk=steps_per_chunk,
    )


def test_the_paper_takes_391_steps_an_epoch_the_last_of_80_images():
    batches = TrainBatches(
        np.zeros((50_000, 1, 1, 3), np.uint8), np.zeros(50_000, np.int32), batch_size=128, seed=0,
        transforms=(), drop_last=False,
    )  # fmt: skip
    sizes = [len(chunk.labels[0]) for chunk in batches.epoch(0)]
    assert sizes == [128] * 390 + [80]
    assert batches.steps_per_epoch == 391 and batches.sizes == [128, 80]
    assert make_batches(50, 16, drop_last=True).steps_per_epoch == 3
    assert make_batches(48, 16).sizes == [16]
    assert make_batches(10, 16).sizes == [10]


def test_labels_stay_with_their_images_and_an_epoch_holds_each_once():
    seen = []
    for chunk in make_batches().epoch(3):
        np.testing.assert_array_equal(chunk.images[..., 0, 0, 0], chunk.labels)
        seen.extend(chunk.labels.ravel())
    assert sorted(seen) == list(range(50))


def test_the_rest_of_an_epoch_equals_its_end():
    whole = list(make_batches().epoch(5))
    rest = list(make_batches().epoch(5, first_step=2))
    assert len(rest) == 2
    for a, b in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_epochs_differ():
    first, second = (next(iter(make_batches().epoch(e))).labels for e in (0, 1))
    assert (first != second).any()


def test_chunks_hold_the_same_batches_on_a_grid_of_the_epoch():
    one_by_one = list(make_batches().epoch(1))  # 16, 16, 16, 2
    batches = make_batches(steps_per_chunk=2)
    assert batches.chunk_bounds() == [(0, 2), (2, 3), (3, 4)]
    assert batches.chunk_bounds(1) == [(1, 2), (2, 3), (3, 4)]
    assert batches.distinct_chunks() == [(0, 2), (2, 3), (3, 4)]
    assert make_batches(96, 16, steps_per_chunk=2).distinct_chunks() == [(4, 6)]
    chunks = list(batches.epoch(1))
    assert [c.labels.shape for c in chunks] == [(2, 16), (1, 16), (1, 2)]
    for one, many in zip(
        one_by_one, [(c, i) for c in chunks for i in range(len(c.labels))], strict=True
    ):
        chunk, i = many
        np.testing.assert_array_equal(one.images[0], chunk.images[i])
        np.testing.assert_array_equal(one.labels[0], chunk.labels[i])


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
