"""The picture of the design space."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.image import imread

from flax_resnet.process.errors import UserError
from flax_resnet.search.plot import design_figure, draw_designs
from flax_resnet.search.space import KNOWN, Space, explore

SPACE = Space(num_layers=(4,), blocks=(1,), first_channels=(32, 64))


def test_every_design_is_a_dot_at_its_parameters_and_multiply_adds():
    candidates = explore(SPACE, 5_000_000)
    axes = design_figure(candidates, 5_000_000).axes[0]
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    expected = [[c.params / 1e6, c.multiply_adds / 1e9] for c in candidates]
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), expected)
    np.testing.assert_array_equal(dots.get_array(), [c.depth for c in candidates])
    assert axes.get_title(loc="left") == "3 residual networks within 5,000,000 parameters"


def test_known_answers_are_marked_where_they_are_and_without_a_design_on_the_axis():
    axes = design_figure(explore(SPACE, 5_000_000), 5_000_000).axes[0]
    points = [line.get_xydata() for line in axes.get_lines() if line.get_marker() in ("*", "^")]
    marks = {tuple(np.asarray(point).ravel().tolist()) for point in points}
    assert marks == {
        (k.params / 1e6, (k.multiply_adds or 0) / 1e9) for k in KNOWN if k.params is not None
    }
    words = [text.get_text() for text in axes.texts]
    assert "the paper: 90.84%" in words and "Efficient ResNets, 2023: 96.04%" in words


def test_answers_beyond_the_bound_are_left_out_and_no_design_is_no_error():
    axes = design_figure([], 3_000_000).axes[0]
    assert [text.get_text() for text in axes.texts] == ["a 2.8M team, 2025: 94.74%"]


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path):
    candidates = explore(SPACE, 5_000_000)
    picture = imread(draw_designs(candidates, 5_000_000, tmp_path / "designs.png"))
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    draw_designs(candidates, 5_000_000, tmp_path / "designs.svg")
    assert b"<svg" in (tmp_path / "designs.svg").read_bytes()
    with pytest.raises(UserError, match=".png, .svg, .pdf"):
        draw_designs(candidates, 5_000_000, tmp_path / "designs.bmp")
