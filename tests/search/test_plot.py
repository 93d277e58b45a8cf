"""The figure of the design space."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.image import imread

from flax_resnet.process.errors import UserError
from flax_resnet.search.plot import design_figure, draw_designs
from flax_resnet.search.published import PUBLISHED
from flax_resnet.search.space import Space, explore

SPACE = Space(num_stages=(4,), blocks=(1,), first_channels=(32, 64))


def test_every_design_is_a_dot_at_its_parameters_and_multiply_adds():
    candidates = explore(SPACE, 5_000_000)
    axes = design_figure(candidates, 5_000_000).axes[0]
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    expected = [[c.params / 1e6, c.multiply_adds / 1e9] for c in candidates]
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), expected)
    np.testing.assert_array_equal(dots.get_array(), [c.depth for c in candidates])
    assert len(candidates) == 3 and axes.get_title(loc="left").startswith("3 residual networks")


def test_published_results_are_stars_with_their_accuracy():
    axes = design_figure(explore(SPACE, 5_000_000), 5_000_000).axes[0]
    stars = [line.get_xydata() for line in axes.get_lines() if line.get_marker() == "*"]
    expected = [[p.cost.params / 1e6, p.cost.multiply_adds / 1e9] for p in PUBLISHED]
    np.testing.assert_allclose(np.concatenate([np.asarray(star) for star in stars]), expected)
    words = [text.get_text() for text in axes.texts]
    assert [word.split(": ")[1] for word in words] == ["90.84%", "96.04%"]


def test_results_over_the_budget_are_left_out_and_no_design_is_no_error():
    axes = design_figure([], 4_700_000).axes[0]
    assert [text.get_text().split(": ")[1] for text in axes.texts] == ["96.04%"]
    assert not design_figure([], 3_000_000).axes[0].texts


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path):
    candidates = explore(SPACE, 5_000_000)
    picture = imread(draw_designs(candidates, 5_000_000, tmp_path / "designs.png"))
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    draw_designs(candidates, 5_000_000, tmp_path / "designs.svg")
    assert b"<svg" in (tmp_path / "designs.svg").read_bytes()
    with pytest.raises(UserError) as caught:
        draw_designs(candidates, 5_000_000, tmp_path / "designs.bmp")
    assert caught.value.field == str(tmp_path / "designs.bmp")
