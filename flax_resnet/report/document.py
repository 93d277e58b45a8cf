"""What a report is made of, whatever it is written as."""

import dataclasses

from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; no markup."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; columns of numbers stand to the right.

    Attributes:
      caption: what it shows, one line.
      header: a name a column, with its unit.
      rows: as many cells each.
      text_columns: how many columns from the left hold words; the others hold numbers.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{self.caption}: {len(row)} cells under {len(self.header)} names")


@dataclasses.dataclass(frozen=True)
class Listing:
    """Text in a monospaced font, its lines kept."""

    caption: str
    text: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      name: of its files, without ending.
      caption: one line, that also stands for the picture where it is not seen.
      figure: what is drawn.
    """

    name: str
    caption: str
    figure: Figure


Block = Paragraph | Table | Listing | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
      name: one of SECTION_NAMES, or another word that no other section has.
      title: its heading.
      outcome: what came out, one sentence for the table at the top; '': not listed there.
      blocks: its content in order.
    """

    name: str
    title: str
    outcome: str
    blocks: tuple[Block, ...]
