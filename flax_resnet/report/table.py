"""Tables, printed as text, Markdown, HTML or CSV."""

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax_resnet.report.escape import escape_html, escape_markdown


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
      header: the name of each column, with its unit.
      rows: one cell per column.
      align: 'l' (left) or 'r' (right) for each column; '': the first left, the others right.
      caption: what the table shows; not part of `text` and `markdown`.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.align:
            object.__setattr__(self, "align", "l" + "r" * (len(self.header) - 1))
        for cells in (self.header, *self.rows):
            if len(cells) != len(self.align):
                raise ValueError(f"{len(cells)} cells in {len(self.align)} columns: {cells}")

    def transposed(self) -> "Table":
        """A row for each column; the header is its first."""
        header, *rows = zip(self.header, *self.rows, strict=True)
        return Table(header, tuple(rows), caption=self.caption)

    def narrowed(self, width: int = 0) -> "Table":
        """This, or transposed if it is wider than so many letters, and than that."""
        fits = self.width <= width
        return self if fits else min(self, self.transposed(), key=lambda table: table.width)

    @property
    def width(self) -> int:
        """Letters in the longest line of the text."""
        return max(map(len, self.text().split("\n")))

    def text(self) -> str:
        """Columns padded with spaces, for a monospaced font."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = ["<" if side == "l" else ">" for side in self.align]
        return "\n".join(
            "  ".join(
                f"{cell:{side}{width}}"
                for cell, side, width in zip(cells, sides, widths, strict=True)
            ).rstrip()
            for cells in lines
        )

    def markdown(self) -> str:
        """GitHub's Markdown, cells escaped."""
        rule = ["---" if side == "l" else "---:" for side in self.align]
        header, *rows = (map(escape_markdown, cells) for cells in (self.header, *self.rows))
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))

    def html(self) -> str:
        """A <table>, cells escaped; the cells of a left-aligned column have class "text"."""

        def line(tag: str, cells: Sequence[str]) -> str:
            tagged = (
                f"<{tag}{' class=text' if side == 'l' else ''}>{escape_html(cell)}</{tag}>"
                for cell, side in zip(cells, self.align, strict=True)
            )
            return f"<tr>{''.join(tagged)}</tr>"

        caption = f"<caption>{escape_html(self.caption)}</caption>\n" if self.caption else ""
        rows = "\n".join(line("td", row) for row in self.rows)
        return (
            f"<table>\n{caption}"
            f"<thead>{line('th', self.header)}</thead>\n<tbody>\n{rows}\n</tbody>\n"
            "</table>"
        )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Objects as for JSON in CSV with a header, without the last line break.

    A field of an inner object has both names, joined by '_'; a list's items are joined by spaces;
    lists of lists are left out.
    """
    flat = [dict(_flat(row)) for row in rows]
    file = io.StringIO()
    columns = dict.fromkeys(column for row in flat for column in row)
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue().rstrip("\n")


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}_{inner}", v) for inner, v in _flat(value))
        elif not isinstance(value, list | tuple):
            yield name, value
        elif not any(isinstance(item, list | tuple) for item in value):
            yield name, " ".join(map(str, value))
