"""Figure 3: the five ImageNet designs, with multiply-adds and parameters counted."""

import dataclasses

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import Summary, summarize
from flax_resnet.report.document import Paragraph, Section, Table

TITLE = "Figure 3: typical ResNet architectures"
IMAGE_SHAPE = (224, 224, 3)
CLASSES = 1000

# Depth -> (the FLOPs row in 10^9, parameters of the published networks).
PAPER = {
    18: (1.8, 11_689_512),
    34: (3.6, 21_797_672),
    50: (3.8, 25_557_032),
    101: (7.6, 44_549_160),
    152: (11.3, 60_192_808),
}
TOLERANCE = 0.02  # of the FLOPs row, which has two or three digits


def imagenet_section() -> Section:
    """The table of the five designs."""
    rows, worst, exact = [], 0.0, True
    for depth, (paper_flops, paper_params) in PAPER.items():
        design = MODELS[f"imagenet_resnet{depth}"]
        summary = count(design)
        ratio = flops_ratio(summary, paper_flops)
        worst = max(worst, abs(ratio - 1))
        exact = exact and summary.params == paper_params
        rows.append(
            (
                f"{depth}-layer",
                design.block,
                ", ".join(map(str, design.stage_sizes)),
                f"{summary.multiply_adds / 1e9:.3f}",
                f"{paper_flops}",
                f"{ratio - 1:+.1%}",
                f"{summary.params:,}",
                f"{paper_params:,}",
            )
        )
    within = "within" if worst <= TOLERANCE else "not within"
    params = "parameters exact" if exact else "parameters differ"
    table = Table(
        "The five designs at 224x224, 1000 classes",
        (
            "network",
            "block",
            "blocks in conv2_x to conv5_x",
            "multiply-adds (10^9)",
            "paper's FLOPs (10^9)",
            "difference",
            "parameters",
            "published",
        ),
        tuple(rows),
        text_columns=3,
    )
    text = (
        "The figure's FLOPs are multiply-adds of one image, forward. They are counted from the "
        "shapes of the modules: for each output pixel, kernel area times channels in times "
        "channels out, pixels of the padding included, projection shortcuts included."
    )
    other = count(dataclasses.replace(MODELS["imagenet_resnet50"], bottleneck_stride="3x3"))
    stride = (
        "Its bottleneck rows hold only with the stride in the first 1x1 convolution. With the "
        f"stride in the 3x3, as most libraries ship it, the 50-layer net has "
        f"{other.multiply_adds / 1e9:.2f} x 10^9."
    )
    outcome = (
        f"Multiply-adds {within} {TOLERANCE:.0%} of the paper's (worst {worst:.1%}); {params}."
    )
    return Section("figure3", TITLE, outcome, (Paragraph(text), table, Paragraph(stride)))


def count(design: Design) -> Summary:
    """Layers and totals of a design on ImageNet."""
    return summarize(ResNet(design, CLASSES), IMAGE_SHAPE)


def flops_ratio(summary: Summary, paper_flops: float) -> float:
    """Counted multiply-adds over the paper's figure in 10^9."""
    return summary.multiply_adds / (paper_flops * 1e9)
