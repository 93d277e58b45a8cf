import numpy as np
import pytest

from flax_resnet.data.batches import EpochPlan, TrainBatches
from flax_resnet.data.transforms import build_transforms
from flax_resnet.data.transforms.crop import RandomCrop
from flax_resnet.data.transforms.cutout import Cutout
from flax_resnet.data.transforms.flip import RandomFlip
from flax_resnet.data.transforms.table import ImageTable


def batches(x: np.ndarray, seed: int = 1, padding: int = 4, flip: bool = True) -> TrainBatches:
    return TrainBatches(
        x, np.zeros(len(x), np.int32), batch_size=len(x), seed=seed, drop_last=False,
        transforms=build_transforms(crop_padding=padding, flip=flip),
    )  # fmt: skip


def test_each_image_is_flipped_padded_and_cropped_as_drawn():
    x = np.random.RandomState(0).randint(0, 256, (50, 8, 6, 3)).astype(np.uint8)
    before = x.copy()
    made = batches(x)
    plan = made.plan(2)
    flips, offsets = plan.draws
    batch = made.chunk(plan, 0, 1).images[0]
    for i, (top, left) in enumerate(offsets):
        image = x[plan.index[i]]
        padded = np.pad(image[:, ::-1] if flips[i] else image, ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(batch[i], padded[top : top + 8, left : left + 6])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"pad_mode": "reflect", "cutout": 3, "trivial_augment": True}]
)
def test_a_table_gives_what_the_transforms_give_in_turn(padding, flip, options):
    x = np.random.RandomState(0).randint(0, 256, (50, 8, 6, 3)).astype(np.uint8)
    transforms = build_transforms(crop_padding=padding, flip=flip, **options)
    index = np.random.RandomState(1).permutation(50)
    plan = EpochPlan(index, tuple(t.draw(1, 0, index) for t in transforms))
    expected = x[plan.index]
    for transform, draws in zip(transforms, plan.draws, strict=True):
        expected = transform.apply(expected, draws)
    table = ImageTable(x, transforms)
    np.testing.assert_array_equal(table.batch(plan.index, plan.draws), expected)


def test_a_reflecting_crop_shows_the_mirrored_edge():
    x = np.random.RandomState(0).randint(0, 256, (20, 8, 6, 3)).astype(np.uint8)
    crop = RandomCrop(3, "reflect")
    draws = crop.draw(0, 0, np.arange(20))
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), "reflect")
    for image, wide, (top, left) in zip(crop.apply(x, draws), padded, draws, strict=True):
        np.testing.assert_array_equal(image, wide[top : top + 8, left : left + 6])


def test_an_alternating_flip_shows_both_mirror_images_in_two_epochs():
    flip = RandomFlip(alternating=True)
    orders = [np.random.RandomState(epoch).permutation(1000) for epoch in range(4)]
    flipped = np.empty((4, 1000), bool)  # by epoch and image
    for epoch, index in enumerate(orders):
        flipped[epoch, index] = flip.draw(5, epoch, index)
    assert (flipped[:-1] ^ flipped[1:]).all()
    assert 430 < flipped[0].sum() < 570
    others = np.empty(1000, bool)
    others[orders[0]] = flip.draw(6, 0, orders[0])
    assert (others != flipped[0]).any()


def test_cutout_covers_a_square_around_any_pixel():
    x = np.random.RandomState(0).randint(0, 200, (500, 8, 6, 3)).astype(np.uint8)
    cutout = Cutout(4, (250, 251, 252))
    draws = cutout.draw(0, 0, np.arange(500))
    out = cutout.apply(x, draws)
    sizes = set()
    for before, after, (a, b) in zip(x, out, draws, strict=True):
        expected, (row, column) = before.copy(), (a % 8, b % 6)
        expected[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = (250, 251, 252)
        np.testing.assert_array_equal(after, expected)
        sizes.add(int((after[..., 0] == 250).sum()))
    assert min(sizes) == 4 and max(sizes) == 16  # in a corner, and whole


def test_a_table_takes_no_more_memory_than_it_may():
    x = np.zeros((10, 8, 6, 3), np.uint8)
    transforms = build_transforms(crop_padding=4, flip=True)
    num_bytes = 2 * 10 * 16 * 14 * 3
    assert ImageTable(x, transforms, num_bytes).num_bytes == num_bytes
    assert ImageTable(x, transforms, num_bytes - 1).num_bytes == 0


def test_an_epoch_uses_every_image_once_and_every_offset():
    plan = batches(np.zeros((20_000, 1, 1, 3), np.uint8)).plan(0)
    np.testing.assert_array_equal(np.sort(plan.index), np.arange(20_000))
    for offsets in plan.draws[1].T:
        counts = np.bincount(offsets, minlength=9)
        assert len(counts) == 9 and counts.min() > 2_000, counts  # 2,222 each, deviation 44
    assert abs(plan.draws[0].mean() - 0.5) < 0.02


def test_a_transform_changes_no_other_stream():
    x = np.zeros((100, 1, 1, 3), np.uint8)
    both, crop = batches(x).plan(3), batches(x, flip=False).plan(3)
    np.testing.assert_array_equal(both.index, crop.index)
    np.testing.assert_array_equal(both.draws[1], crop.draws[0])


def test_the_draws_are_frozen():
    plan = batches(np.zeros((8, 1, 1, 3), np.uint8), seed=2**32 - 1).plan(7)
    assert plan.index.tolist() == [2, 4, 0, 6, 7, 1, 3, 5]
    assert plan.draws[0].astype(int).tolist() == [0, 0, 0, 0, 0, 1, 0, 1]
    assert plan.draws[1].ravel().tolist() == [2, 4, 1, 8, 6, 4, 8, 1, 2, 3, 1, 8, 1, 1, 7, 5]
