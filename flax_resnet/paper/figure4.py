"""Figure 4: the revised architecture, the two parameter tables, and the value of K2."""

import dataclasses

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.summary import count_parameters, format_summary, summarize
from flax_resnet.paper.architecture import read_architecture
from flax_resnet.paper.architecture_figure import architecture_figure
from flax_resnet.report.document import Folded, Listing, Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.search.space import TASK_PARAMS

TITLE = "Figure 4: the revised architecture and its parameters"
IMAGE_SHAPE = (32, 32, 3)
CLASSES = 10
PRINTED = {"resnet18": 11_173_962, "revised": 4_903_242}  # Figures 4(b) and 4(c)


def architecture_section() -> Section:
    """The drawing, the tables, and the contradiction about K2."""
    revised = ResNet(MODELS["revised"], CLASSES)
    architecture = read_architecture(revised, IMAGE_SHAPE)
    title = f"Figure 4(a): revised ResNet, {architecture.params:,} parameters"
    tables = []
    for letter, name in (("b", "resnet18"), ("c", "revised")):
        summary = summarize(ResNet(MODELS[name], CLASSES), IMAGE_SHAPE)
        caption = f"Figure 4({letter}): {name}, {summary.params:,} parameters"
        tables.append(Folded(Listing(caption, format_summary(summary, caption))))
    counts = shortcut_counts()
    exact = counts["K = 1, 1, 1, 1"] == PRINTED["revised"]
    outcome = (
        f"The network drawn has {architecture.params:,} parameters, Figure 4(c) prints "
        f"{PRINTED['revised']:,}; with K2 = 3, as in the text, it would have "
        f"{counts['K = 3, 3, 3, 3']:,}."
    )
    return Section(
        "figure4",
        TITLE,
        outcome,
        (
            Paragraph(
                "Drawn from the layers of the module. Identity shortcuts have no convolution (the "
                "paper's K1 = 0); orange boxes are projections."
            ),
            Picture("figure4", title, architecture_figure(architecture, title)),
            _shortcut_table(counts),
            Paragraph(
                "According to the paper's text, K2, the kernel size of a shortcut that changes the "
                f"shape, is 3. With 3x3 shortcuts the network has {counts['K = 3, 3, 3, 3']:,} "
                f"parameters (the budget is {TASK_PARAMS:,}); with a 3x3 shortcut in stage 2 only, "
                f"{counts['K = 1, 3, 1, 1']:,}. "
                + (
                    f"Only 1x1 shortcuts give the {PRINTED['revised']:,} that the paper prints, so "
                    "the program uses K = 1."
                    if exact
                    else f"None gives the {PRINTED['revised']:,} that the paper prints."
                )
            ),
            *tables,
        ),
    )


def shortcut_counts() -> dict[str, int]:
    """Parameters of the revised network, by its shortcut kernel sizes K_1 to K_4."""
    counts = {}
    for kernels in ((1, 1, 1, 1), (3, 3, 3, 3), (1, 3, 1, 1)):
        design = dataclasses.replace(MODELS["revised"], shortcut_kernels=kernels)
        params = count_parameters(ResNet(design, CLASSES), IMAGE_SHAPE)
        counts[f"K = {', '.join(map(str, kernels))}"] = params
    return counts


def _shortcut_table(counts: dict[str, int]) -> Table:
    rows = [
        (
            kernels,
            f"{params:,}",
            f"{params - PRINTED['revised']:+,}" if params != PRINTED["revised"] else "0",
            "yes" if params < TASK_PARAMS else "no",
        )
        for kernels, params in counts.items()
    ]
    caption = f"The revised network; Figure 4(c) prints {PRINTED['revised']:,} parameters"
    return Table(
        ("shortcut kernels", "parameters", "minus printed", f"under {TASK_PARAMS:,}"),
        rows,
        caption=caption,
    )
