"""The ranked designs as text."""

from collections.abc import Collection, Sequence

from flax_resnet.report.table import Table
from flax_resnet.search.published import Published
from flax_resnet.search.space import Candidate, listed, per_stage

_HEADER = ("row", "N", "B", "C", "F", "K", "P", "depth", "parameters", "mult-adds", "")


def ranked_table(
    ranked: Sequence[Candidate], rows: Collection[int], published: Sequence[Published]
) -> str:
    """Some of the designs, and those of published results.

    Args:
      ranked: as from explore; row 1 is the first.
      rows: which to show; those beyond the last are ignored.
      published: named in their rows.
    """
    names = {result.design: result for result in published}
    lines = []
    for row, candidate in enumerate(ranked, start=1):
        result = names.get(candidate.design)
        if row in rows or result is not None:
            lines.append((str(row), *_cells(candidate), _note(result)))
    return Table(_HEADER, lines, "rrlllllrrrl").text()


def _cells(candidate: Candidate) -> tuple[str, ...]:
    design = candidate.design
    return (
        str(len(design.stage_sizes)),
        listed(design.stage_sizes),
        listed(design.stage_channels),
        per_stage(design.kernel_sizes),
        per_stage(design.shortcut_kernels) if design.shortcut == "projection" else "-",
        str(design.pool_size or "whole"),
        str(candidate.depth),
        f"{candidate.params:,}",
        f"{candidate.multiply_adds / 1e9:.3f} G",
    )


def _note(result: Published | None) -> str:
    if result is None:
        return ""
    more = f", with {result.extra.params:,} more parameters" if result.extra.params else ""
    return f"{result.name}: {result.accuracy:.2%}{more}"
