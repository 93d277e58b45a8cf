"""Tables, printed as text, Markdown or HTML."""

import dataclasses
from collections.abc import Sequence

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
