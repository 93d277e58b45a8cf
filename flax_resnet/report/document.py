"""The parts of a report, independent of its format."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from flax_resnet.report.table import Table


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; no markup."""

    text: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """Preformatted text in a monospaced font."""

    caption: str
    text: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      name: file name without suffix.
      caption: one line, the alternative text too.
      figure: the drawing.
    """

    name: str
    caption: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Small images in as many columns as fit.

    Attributes:
      caption: what they show.
      images: uint8 RGB [h, w, 3], each.
      captions: a few words under each; '': none.
      side: their width in pixels, about.
    """

    caption: str
    images: Sequence[UInt8[np.ndarray, "h w 3"]]
    captions: Sequence[str]
    side: int = 104


@dataclasses.dataclass(frozen=True)
class Columns:
    """Blocks side by side, where there is room.

    Attributes:
      columns: (heading, blocks) of each.
    """

    columns: Sequence[tuple[str, "Sequence[Block]"]]


@dataclasses.dataclass(frozen=True)
class Folded:
    """A long table or listing that opens at a click on its caption."""

    block: Table | Listing


Block = Paragraph | Table | Listing | Picture | Folded | Gallery | Columns


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
      name: unique in the report, the anchor of links to it.
      title: its heading.
      outcome: one sentence for the table at the top; '': not listed there.
      blocks: its content in order.
    """

    name: str
    title: str
    outcome: str
    blocks: tuple[Block, ...]
