import numpy as np

from flax_resnet.data.transforms.crop_flip import Augmenter, EpochPlan, plan_epoch


def images(num: int = 50, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def by_hand(image: np.ndarray, top: int, left: int, flip: bool, padding: int) -> np.ndarray:
    """The paper's augmentation of one image, step by step."""
    if flip:
        image = image[:, ::-1]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def test_each_image_is_padded_cropped_and_flipped_as_drawn():
    x = images()
    plan = plan_epoch(len(x), seed=1, epoch=2, padding=4, flip=True)
    batch = Augmenter(x, padding=4, flip=True)(plan, 10, 40)
    for row, position in enumerate(range(10, 40)):
        expected = by_hand(
            x[plan.index[position]], plan.top[position], plan.left[position],
            bool(plan.flip[position]), 4,
        )  # fmt: skip
        np.testing.assert_array_equal(batch[row], expected)


def test_large_sets_are_augmented_batch_by_batch_with_the_same_result():
    x = images()
    plan = plan_epoch(len(x), seed=1, epoch=0, padding=4, flip=True)
    table = Augmenter(x, padding=4, flip=True)
    no_table = Augmenter(x, padding=4, flip=True, max_table_bytes=0)
    np.testing.assert_array_equal(table(plan, 3, 33), no_table(plan, 3, 33))


def test_without_crop_and_flip_images_are_only_reordered():
    x = images()
    plan = plan_epoch(len(x), seed=1, epoch=0, padding=0, flip=False)
    np.testing.assert_array_equal(Augmenter(x, padding=0, flip=False)(plan, 0, 50), x[plan.index])


def test_an_epoch_uses_every_image_once_and_every_offset():
    plan = plan_epoch(20_000, seed=0, epoch=0, padding=4, flip=True)
    np.testing.assert_array_equal(np.sort(plan.index), np.arange(20_000))
    for offsets in (plan.top, plan.left):
        counts = np.bincount(offsets, minlength=9)
        assert len(counts) == 9 and counts.min() > 2_000, counts  # 2,222 each, deviation 44
    assert abs(plan.flip.mean() - 0.5) < 0.02


def test_a_plan_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> EpochPlan:
        return plan_epoch(1000, seed=seed, epoch=epoch, padding=4, flip=True)

    first = order(3, 7)
    for field in ("index", "top", "left", "flip"):
        np.testing.assert_array_equal(getattr(first, field), getattr(order(3, 7), field))
        for other in (order(3, 8), order(4, 7)):
            assert (getattr(first, field) != getattr(other, field)).any()
