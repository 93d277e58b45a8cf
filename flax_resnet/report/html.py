"""A report as one self-contained HTML page, for screens (dark or light) and print."""

import dataclasses
from collections.abc import Mapping, Sequence

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
from flax_resnet.report.encode import data_uri, image_uri
from flax_resnet.report.escape import escape_html
from flax_resnet.report.table import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --soft: #5f5f5f;
  --line: #d8d8d8; --shade: #f4f4f4; --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181b; --soft: #a5a5a5;
  --line: #3c4046; --shade: #22252a; --link: #8ab8ea; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; }
a { color: var(--link); }
nav ul { padding-left: 1.2rem; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption, figcaption, .caption { text-align: left; color: var(--soft); font-size: .9rem;
  padding-bottom: .4rem; }
caption { white-space: nowrap; }
th, td { padding: .3rem .7rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; background: var(--shade); vertical-align: bottom; }
.text { text-align: left; }
td:first-child, td:not(.text) { white-space: nowrap; }
details { margin: 1.25rem 0; }
summary { color: var(--link); cursor: pointer; }
figure { margin: 1.5rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { padding-top: .5rem; }
@media (prefers-color-scheme: dark) { .drawing { filter: invert(.91) hue-rotate(180deg); } }
.gallery { display: grid; gap: .7rem .6rem; align-items: start; margin: .5rem 0 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--side), 100%), 1fr)); }
.gallery div { font-size: .78rem; line-height: 1.25; white-space: pre-line;
  overflow-wrap: anywhere; break-inside: avoid; }
.gallery img { display: block; width: 100%; image-rendering: pixelated; border-radius: 3px;
  margin-bottom: .2rem; }
.columns { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.columns > div { min-width: 0; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
pre { font: .72rem/1.35 ui-monospace, monospace; background: var(--shade); padding: .8rem;
  overflow-x: auto; border-radius: 4px; }
@media (max-width: 40rem) { td:first-child, td:not(.text) { white-space: normal; }
  th, td { padding: .3rem .45rem; } }
@media print {
  :root { --ink: #000000; --paper: #ffffff; --soft: #444444; --line: #bbbbbb; --shade: #f4f4f4; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2 { break-after: avoid; margin-top: 1.5rem; }
  h3, .caption { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  details:not([open]) { display: none; }
  .drawing { filter: none; }
  .wide, pre { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .2rem .35rem; }
  pre { font-size: 6.5pt; padding: 0; }
}
"""


def to_html(title: str, sections: Sequence[Section], svgs: Mapping[str, bytes]) -> str:
    """The report as an HTML page.

    Args:
      title: its heading.
      sections: in order.
      svgs: name of each picture -> its SVG.
    """
    links = "".join(
        f'<li><a href="#{escape_html(s.name)}">{escape_html(s.title)}</a></li>' for s in sections
    )
    body = "\n".join(_section(section, svgs) for section in sections)
    return html_page(title, f"<nav><ul>{links}</ul></nav>\n{body}")


def html_page(title: str, body: str, head: str = "") -> str:
    """A page with this program's style: a heading, then `body`; `head`: more for the <head>."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_html(title)}</title>\n<style>{_STYLE}</style>\n{head}</head>\n<body>\n"
        f"<h1>{escape_html(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section, svgs: Mapping[str, bytes]) -> str:
    blocks = "\n".join(_block(block, svgs) for block in section.blocks)
    heading = f"<h2>{escape_html(section.title)}</h2>"
    return f'<section id="{escape_html(section.name)}">\n{heading}\n{blocks}\n</section>'


def _block(block: Block, svgs: Mapping[str, bytes]) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{escape_html(block.text)}</p>"
    if isinstance(block, Folded):
        inner = block.block
        content = _block(dataclasses.replace(inner, caption=""), svgs)
        return f"<details><summary>{escape_html(inner.caption)}</summary>\n{content}</details>"
    if isinstance(block, Table):
        return f'<div class="wide">{block.html()}</div>'
    if isinstance(block, Gallery):
        return _gallery(block)
    if isinstance(block, Columns):
        columns = (
            f"<div><h3>{escape_html(heading)}</h3>\n"
            + "\n".join(_block(inner, svgs) for inner in blocks)
            + "</div>"
            for heading, blocks in block.columns
        )
        return f'<div class="columns">{"".join(columns)}</div>'
    if isinstance(block, Listing):
        caption = f'<p class="caption">{escape_html(block.caption)}</p>\n' if block.caption else ""
        return f"{caption}<pre>{escape_html(block.text)}</pre>"
    return _picture(block, svgs[block.name])


def _picture(picture: Picture, svg: bytes) -> str:
    """An <img>, so that the ids inside several SVGs cannot clash."""
    caption = escape_html(picture.caption)
    return (
        f'<figure><img class="drawing" src="{data_uri(svg, "image/svg+xml")}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _gallery(gallery: Gallery) -> str:
    tiles = "".join(
        f'<div><img src="{image_uri(image)}" alt="{escape_html(text)}">{escape_html(text)}</div>'
        for image, text in zip(gallery.images, gallery.captions, strict=True)
    )
    caption = f'<p class="caption">{escape_html(gallery.caption)}</p>\n' if gallery.caption else ""
    return f'{caption}<div class="gallery" style="--side: {gallery.side}px">{tiles}</div>'
