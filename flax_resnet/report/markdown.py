"""A report as GitHub Markdown, its figures in separate files."""

from collections.abc import Sequence

from flax_resnet.report.document import (
    Block,
    Columns,
    Folded,
    Gallery,
    Listing,
    Paragraph,
    Picture,
    Section,
)
from flax_resnet.report.escape import escape_html, escape_markdown
from flax_resnet.report.table import Table

FIGURES = "figures"  # folder of the pictures, next to the report


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown.

    Args:
      title: its heading.
      sections: in order.
    """
    parts = [f"# {escape_markdown(title)}"]
    for section in sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return escape_markdown(block.text)
    if isinstance(block, Folded):
        inner = block.block
        text = inner.markdown() if isinstance(inner, Table) else _fenced(inner)
        summary = f"<summary>{escape_html(inner.caption)}</summary>"
        return f"<details>{summary}\n\n{text}\n\n</details>"
    if isinstance(block, Table):
        return f"{escape_markdown(block.caption)}:\n\n{block.markdown()}"
    if isinstance(block, Gallery):  # Markdown shows images in files only
        return "\n".join(f"- {escape_markdown(text)}" for text in (block.caption, *block.captions))
    if isinstance(block, Columns):
        parts = [
            f"### {escape_markdown(heading)}\n\n" + "\n\n".join(map(_block, blocks))
            for heading, blocks in block.columns
        ]
        return "\n\n".join(parts)
    if isinstance(block, Listing):
        return f"{escape_markdown(block.caption)}:\n\n{_fenced(block)}"
    return _picture(block)


def _fenced(listing: Listing) -> str:
    return f"```text\n{listing.text}\n```"


def _picture(picture: Picture) -> str:
    path = f"{FIGURES}/{picture.name}"
    caption = escape_markdown(picture.caption)
    return f"![{caption}]({path}.png)\n\n{caption} ([SVG]({path}.svg))."
