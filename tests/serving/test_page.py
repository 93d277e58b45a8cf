"""The page says what the network is, and loads nothing."""

import re
import shutil

import pytest

from flax_resnet.serving.app import MAX_BYTES
from flax_resnet.serving.page import make_page


def test_the_page_is_whole_and_loads_nothing(served):
    response, body = served.ask("GET", "/")
    page = body.decode()
    assert (
        response.status == 200
        and "default-src 'none'" in response.headers["content-security-policy"]
    )
    assert "http:" not in page and "https:" not in page and "//" not in re.sub(r"</?\w+>", "", page)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "@import" not in page and "url(" not in page
    assert f'data-bytes="{MAX_BYTES}"' in page and page.count("<main") == 1


def test_it_names_network_classes_and_accuracy(model, tiny_run):
    page = make_page(model, str(tiny_run))
    assert "<title>tiny, digits</title>" in page
    assert re.search(
        r"revised, [\d,]+ parameters, trained for 2 epochs on digits: [\d.]+% of 90", page
    )
    assert "10 classes apart: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in page


def test_names_from_outside_are_text(model, tiny_run, tmp_path):
    copy = tmp_path / "<b>&"
    shutil.copytree(tiny_run, copy)
    assert "<h1>&lt;b&gt;&amp;, digits</h1>" in make_page(model, str(copy))


def test_a_run_without_metrics_has_a_page(model, tiny_run, tmp_path):
    assert "parameters.</p>" in make_page(model, str(tmp_path))


@pytest.mark.parametrize(("draw", "expected"), [(None, 1), (False, 0), (True, 1)])
def test_digits_are_drawn_unless_told_otherwise(model, tiny_run, draw, expected):
    assert f'data-draw="{expected}"' in make_page(model, str(tiny_run), draw)


def test_photographs_are_not_drawn(wide_run):
    from flax_resnet.inference.model import load

    page = make_page(load(wide_run), str(wide_run))
    assert 'data-draw="0"' in page and 'data-height="12" data-width="20"' in page
