"""The design space of Figure 4(a) under the paper's budget, of which its network is one point."""

from flax_resnet.report.document import Paragraph, Picture, Section, Table
from flax_resnet.search.plot import design_figure
from flax_resnet.search.space import (
    KNOWN,
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
    """How many designs fit, those with the most computation, and the paper's place."""
    space = Space()
    candidates = explore(space, TASK_PARAMS)
    places = [c.design for c in candidates]
    place = places.index(PAPER_DESIGN) + 1 if PAPER_DESIGN in places else None
    shown = list(enumerate(candidates[:TOP], start=1))
    if place is not None and place > TOP:
        shown.append((place, candidates[place - 1]))
    rows = tuple(_row(number, candidate) for number, candidate in shown)
    where = f"the paper's design is number {place:,}" if place else "the paper's is not among them"
    outcome = (
        f"{len(candidates):,} of {space.size():,} designs have at most {TASK_PARAMS:,} parameters; "
        f"by multiply-adds {where}."
    )
    text = (
        "Designs with N = 3 or 4 residual layers of 1 to 4 blocks (B), channels (C) that double "
        "from layer to layer, 3x3 kernels (F), shortcuts with 1x1 or 3x3 kernels (K), and an "
        "average pool (P) over the whole map. Most multiply-adds first: the most computation that "
        "the budget buys. python -m flax_resnet design has every range as an option."
    )
    answers = tuple(
        (k.name, k.params_words, f"{k.accuracy:.2%}", describe(k.design) if k.design else "-")
        for k in KNOWN
    )
    figure = design_figure(candidates, TASK_PARAMS)
    caption = f"Parameters and multiply-adds of the {len(candidates):,} designs"
    return Section(
        "design",
        TITLE,
        outcome,
        (
            Paragraph(text),
            Table(
                f"The first {TOP} by multiply-adds, and the paper's",
                ("rank", "design", "parameters", "multiply-adds (10^9)", "depth"),
                rows,
                text_columns=2,
            ),
            Picture("design", caption, figure),
            Table(
                "Public answers to the same task, figures as their authors give them",
                ("who", "design", "parameters", "test accuracy"),
                tuple((who, design, params, best) for who, params, best, design in answers),
                text_columns=2,
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
