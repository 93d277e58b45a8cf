"""A report as Markdown (GitHub's), with its figures as files beside it."""

import re
from collections.abc import Sequence

from flax_resnet.report.document import Block, Listing, Paragraph, Picture, Section, Table

FIGURES = "figures"  # folder of the pictures, beside the report


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole report.

    Args:
      title: its heading.
      sections: in order.
    """
    parts = [f"# {_escape(title)}"]
    for section in sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return _escape(block.text)
    if isinstance(block, Table):
        return f"{_escape(block.caption)}:\n\n{_table(block)}"
    if isinstance(block, Listing):
        return f"{_escape(block.caption)}:\n\n```text\n{block.text}\n```"
    return _picture(block)


def _table(table: Table) -> str:
    rules = ["---" if i < table.text_columns else "---:" for i in range(len(table.header))]
    lines = [table.header, rules, *table.rows]
    lines[2:] = [[_escape(cell) for cell in row] for row in table.rows]
    lines[0] = [_escape(cell) for cell in table.header]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _picture(picture: Picture) -> str:
    path = f"{FIGURES}/{picture.name}"
    caption = _escape(picture.caption)
    return f"![{caption}]({path}.png)\n\n{caption} ([SVG]({path}.svg))."


def _escape(text: str) -> str:
    """Text that means itself in Markdown, on one line."""
    return re.sub(r"([\\`*_<>|\[\]~#])", r"\\\1", " ".join(text.split()))
