"""Text from outside means itself in both formats."""

from flax_resnet.report.document import Folded, Listing, Paragraph, Section
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
