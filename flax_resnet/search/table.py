"""The ranked designs as text."""

from collections.abc import Mapping, Sequence

from flax_resnet.search.space import Candidate, KnownAnswer, listed, shortened

_HEADINGS = ("row", "N", "B", "C", "F", "K", "P", "depth", "parameters", "mult-adds")
_LEFT = ("B", "C", "F", "K", "P")  # all other columns are numbers, aligned right


def ranked_table(ranked: Sequence[Candidate], known: Sequence[KnownAnswer], num_rows: int) -> str:
    """The first designs, and further down those of public answers, wherever they rank.

    Args:
      ranked: as from design_space.explore; row 1 is the first.
      known: public answers, their rows named; those without a design follow the table.
      num_rows: how many of the first designs to show.
    """
    rows = dict(enumerate(ranked[:num_rows], start=1))
    numbers = {candidate.design: row for row, candidate in enumerate(ranked, start=1)}
    notes = {}
    for answer in known:
        if answer.design in numbers:
            row = numbers[answer.design]
            rows[row] = ranked[row - 1]
            notes[row] = _remark(answer, ranked[row - 1])
    lines = _table(dict(sorted(rows.items())), notes)
    others = [answer for answer in known if answer.design is None]
    if others:
        lines += ["", "Other public answers, their designs not known in full:"]
    for answer in others:
        lines.append(f"  {answer.name}: {answer.params_words} parameters, {answer.accuracy:.2%}")
    return "\n".join(lines)


def _table(rows: Mapping[int, Candidate], notes: Mapping[int, str]) -> list[str]:
    cells = [_HEADINGS, *(_cells(row, candidate) for row, candidate in rows.items())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADINGS))]
    lines = []
    for line, note in zip(cells, ["", *(notes.get(row, "") for row in rows)], strict=True):
        aligned = [
            cell.ljust(width) if heading in _LEFT else cell.rjust(width)
            for heading, cell, width in zip(_HEADINGS, line, widths, strict=True)
        ]
        lines.append("  ".join([*aligned, note]).rstrip())
    return lines


def _cells(row: int, candidate: Candidate) -> tuple[str, ...]:
    design = candidate.design
    return (
        str(row),
        str(len(design.stage_sizes)),
        listed(design.stage_sizes),
        listed(design.stage_channels),
        shortened(design.kernel_sizes),
        shortened(design.shortcut_kernels) if design.shortcut == "projection" else "-",
        str(design.pool_size or "whole"),
        str(candidate.depth),
        f"{candidate.params:,}",
        f"{candidate.multiply_adds / 1e9:.3f} G",
    )


def _remark(answer: KnownAnswer, candidate: Candidate) -> str:
    """Who has the design, and what the answer adds to it."""
    more = (answer.params or candidate.params) - candidate.params
    words = f" (with {more:,} parameters more)" if more else ""
    return f"{answer.name}: {answer.accuracy:.2%}{words}"
