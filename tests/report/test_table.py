import pytest

from flax_resnet.report.table import Table, csv_text

TABLE = Table(("name", "n"), (("<i>", "1"), ("a|b\x1b", "1,000")), caption="A & B")


def test_text_is_aligned_without_trailing_spaces():
    assert Table(("name", "n", ""), (("ab", "1", "x"), ("c", "22", "")), "lrl").text() == (
        "name   n\nab     1  x\nc     22"
    )


def test_markdown_is_aligned_and_escaped():
    assert TABLE.markdown().splitlines() == [
        "| name | n |",
        "| --- | ---: |",
        r"| \<i\> | 1 |",
        r"| a\|b\\x1b | 1,000 |",
    ]


def test_html_is_aligned_and_escaped():
    html = TABLE.html()
    assert "<caption>A &amp; B</caption>" in html
    assert "<td class=text>&lt;i&gt;</td><td>1</td>" in html
    assert r"a|b\x1b" in html


def test_a_wide_table_has_a_row_for_each_column():
    wide = Table(("run", "first", "second", "third"), (("a", "1", "2", "3"), ("b", "", "2", "4")))
    tall = Table(("run", "a", "b"), (("first", "1", ""), ("second", "2", "2"), ("third", "3", "4")))
    assert wide.narrowed(wide.width) == wide and wide.narrowed(wide.width - 1) == tall
    assert tall.narrowed() == tall  # the other is wider


def test_a_row_of_other_length_is_an_error():
    with pytest.raises(ValueError):
        Table(("a", "b"), (("1",),))


def test_csv_has_every_column_once_and_is_quoted():
    rows = [
        {"run": "a,b", "n": {"x": 1, "y": (2, 3)}, "big": [[1], [2]]},
        {"run": "c", "more": 0.5},
    ]
    assert csv_text(rows) == 'run,n_x,n_y,more\n"a,b",1,2 3,\nc,,,0.5'
