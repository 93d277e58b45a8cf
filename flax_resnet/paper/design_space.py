"""The design space of Figure 4(a) within the paper's budget, and its network's place in it."""

from flax_resnet.report.document import Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.search.plot import design_figure
from flax_resnet.search.published import PUBLISHED
from flax_resnet.search.space import (
    PAPER_DESIGN,
    TASK_PARAMS,
    Candidate,
    Space,
    describe,
    explore,
)

TITLE = "Design space (Figure 4(a))"
TOP = 10  # designs in the table


def design_section() -> Section:
    """How many designs fit, those with the most multiply-adds, and the paper's rank."""
    space = Space()
    candidates = explore(space, TASK_PARAMS)
    places = [c.design for c in candidates]
    place = places.index(PAPER_DESIGN) + 1 if PAPER_DESIGN in places else None
    shown = list(enumerate(candidates[:TOP], start=1))
    if place is not None and place > TOP:
        shown.append((place, candidates[place - 1]))
    where = f"the paper's design ranks {place:,}" if place else "the paper's is not among them"
    outcome = (
        f"{len(candidates):,} of {space.size():,} designs have at most {TASK_PARAMS:,} parameters; "
        f"by multiply-adds, {where}."
    )
    text = (
        "Designs with N = 3 or 4 stages of 1 to 4 blocks (B), channels (C) that double from stage "
        "to stage, 3x3 kernels (F), 1x1 or 3x3 shortcut kernels (K), and an average pool (P) over "
        "the whole feature map, ranked by multiply-adds: the most computation within the budget. "
        "python -m flax_resnet design searches other ranges."
    )
    published = [
        (p.name, describe(p.design), f"{p.cost.params:,}", f"{p.accuracy:.2%}") for p in PUBLISHED
    ]
    figure = design_figure(candidates, TASK_PARAMS)
    caption = f"Parameters and multiply-adds of the {len(candidates):,} designs"
    return Section(
        "design",
        TITLE,
        outcome,
        (
            Paragraph(text),
            Table(
                ("rank", "design", "parameters", "multiply-adds (10^9)", "depth"),
                [_row(number, candidate) for number, candidate in shown],
                "rlrrr",
                caption=f"The top {TOP} by multiply-adds, and the paper's",
            ),
            Picture("design", caption, figure),
            Table(
                ("source", "design", "parameters", "test accuracy"),
                published,
                "llrr",
                caption="Published results for the same task",
            ),
        ),
    )


def _row(number: int, candidate: Candidate) -> tuple[str, ...]:
    name = describe(candidate.design)
    return (
        f"{number:,}",
        f"{name} (the paper)" if candidate.design == PAPER_DESIGN else name,
        f"{candidate.params:,}",
        f"{candidate.multiply_adds / 1e9:.3f}",
        str(candidate.depth),
    )
