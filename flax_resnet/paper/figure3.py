"""Figure 3: multiply-adds and parameters of the five ImageNet designs."""

import dataclasses

from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design, ResNet
from flax_resnet.models.summary import Summary, summarize
from flax_resnet.report.document import Paragraph, Section
from flax_resnet.report.table import Table

TITLE = "Figure 3: typical ResNet architectures"
IMAGE_SHAPE = (224, 224, 3)
CLASSES = 1000

# Depth -> (FLOPs row of the figure in 10^9, parameters of the published networks).
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
    params = "parameters match exactly" if exact else "parameters differ"
    table = Table(
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
        rows,
        "lllrrrrr",
        caption="The five designs at 224x224 with 1,000 classes",
    )
    text = (
        "The figure's FLOPs are the multiply-adds of one image's forward pass. They are counted "
        "from the shapes of the modules: for each output pixel, kernel area times input channels "
        "times output channels, including padded pixels and projection shortcuts."
    )
    other = count(dataclasses.replace(MODELS["imagenet_resnet50"], bottleneck_stride="3x3"))
    difference = flops_ratio(other, PAPER[50][0]) - 1
    stride = (
        "Bottlenecks have their stride in the first 1x1 convolution. With the stride in the 3x3 "
        "convolution, as in most libraries, the 50-layer net has "
        f"{other.multiply_adds / 1e9:.2f} x 10^9 multiply-adds, {difference:+.1%} from the paper's."
    )
    outcome = (
        f"Multiply-adds {within} {TOLERANCE:.0%} of the paper's (worst {worst:.1%}); {params}."
    )
    return Section("figure3", TITLE, outcome, (Paragraph(text), table, Paragraph(stride)))


def count(design: Design) -> Summary:
    """Layers and totals of a design on ImageNet."""
    return summarize(ResNet(design, CLASSES), IMAGE_SHAPE)


def flops_ratio(summary: Summary, paper_flops: float) -> float:
    """Counted multiply-adds over the paper's, given in 10^9."""
    return summary.multiply_adds / (paper_flops * 1e9)
