"""Text from outside means itself in both formats."""

import base64
import io

import numpy as np
from PIL import Image

from flax_resnet.report.document import Columns, Folded, Gallery, Listing, Paragraph, Section
from flax_resnet.report.encode import image_uri
from flax_resnet.report.html import to_html
from flax_resnet.report.markdown import to_markdown
from flax_resnet.report.table import Table

SECTION = Section(
    "x",
    "A & B",
    "",
    (
        Paragraph("1 < 2, a|b, *no* `code` \x00\udcff"),
        Table(("k", "v"), (("<i>", "1|2"),), caption="T"),
        Listing("L", "a < b\n  c"),
        Folded(Table(("f",), (("1|<",),), caption="F <")),
    ),
)


def test_html_is_escaped():
    page = to_html("T", [SECTION], {})
    assert "A &amp; B" in page and r"1 &lt; 2, a|b, *no* `code` \x00\udcff" in page
    assert "&lt;i&gt;" in page and "a &lt; b\n  c" in page
    assert "<details><summary>F &lt;</summary>" in page and page.count("<caption>") == 1
    page.encode()


def test_markdown_is_escaped():
    text = to_markdown("T", [SECTION])
    assert r"1 \< 2, a\|b, \*no\* \`code\` \\x00\\udcff" in text
    assert r"| \<i\> | 1\|2 |" in text and "| --- | ---: |" in text
    assert "a < b\n  c" in text
    assert "<details><summary>F &lt;</summary>\n\n| f |" in text and r"1\|\<" in text
    text.encode()


def test_images_and_columns_are_in_both_formats():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    columns = Columns([("a <", [Paragraph("left")]), ("b", [Paragraph("right")])])
    section = Section("g", "G", "", (Gallery("four & more", [image], ["cat <1>"]), columns))
    page, text = to_html("T", [section], {}), to_markdown("T", [section])
    assert image_uri(image) in page and "cat &lt;1&gt;" in page and "four &amp; more" in page
    assert "<h3>a &lt;</h3>" in page and page.index("left") < page.index("right")
    assert r"- cat \<1\>" in text and r"### a \<" in text and "right" in text


def test_small_images_are_kept_as_they_are_and_large_ones_shrunk():
    def decoded(image: np.ndarray) -> np.ndarray:
        content = base64.b64decode(image_uri(image).partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(content)))

    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(decoded(image), image)
    assert decoded(np.zeros((300, 600, 3), np.uint8)).shape == (112, 224, 3)
