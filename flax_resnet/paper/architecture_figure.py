"""Draws an architecture as in Figure 4(a): boxes from top to bottom, shortcuts on their right."""

import dataclasses

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from flax_resnet.paper.architecture import Architecture, BlockDrawing, Box
from flax_resnet.plots.style import COLORS, DPI, FONT, GREY

# Inches; x = 0 is the center of a column's boxes.
BOX = (2.75, 0.44)  # width, height
PROJECTION_WIDTH = 2.1
SHORTCUT_X = 2.85  # center of the shortcuts
COLUMN_WIDTH = 6.1
LEFT = 1.65  # from the column's left edge to x = 0
GAP = 0.17  # length of an arrow between boxes
SHAPE_GAP = 0.34  # length of an arrow labeled with a shape
PLUS_RADIUS = 0.11
FRAME_PAD = 0.1
LABEL_HEIGHT = 0.26  # of a stage's name in its frame
TITLE_HEIGHT = 0.55
SMALL = FONT - 3.5

_FILLS = {"conv": "#DCEAF5", "pool": "#FBE9DC", "linear": "#E0F2EC", "frame": "#F6F6F6"}


@dataclasses.dataclass
class _Pen:
    """The current position in a column; `y` grows downwards."""

    axes: Axes
    x: float
    y: float


def architecture_figure(architecture: Architecture, title: str) -> Figure:
    """The network in two columns, read from top left to bottom right."""
    heights = [_stage_height(stage) for stage in architecture.stages]
    stem = (1 + len(architecture.stem)) * (BOX[1] + GAP)
    head = len(architecture.head) * (BOX[1] + GAP) + BOX[1]
    split = _balanced_split(heights, stem, head)
    tallest = max(stem + sum(heights[:split]), sum(heights[split:]) + head)
    height = tallest + TITLE_HEIGHT + 0.3
    figure = Figure(figsize=(2 * COLUMN_WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 2 * COLUMN_WIDTH)
    axes.set_ylim(height, 0)
    axes.axis("off")
    axes.text(0.2, 0.32, title, fontsize=FONT + 1, va="center", parse_math=False)
    pen = _Pen(axes, LEFT, TITLE_HEIGHT + 0.12)
    _write_shape(pen, architecture.image_shape, "image, ")
    for box in architecture.stem:
        _arrow_down(pen, GAP)
        _draw_box(pen, box)
    shape = architecture.stem[-1].output_shape
    for number, stage in enumerate(architecture.stages, start=1):
        if number == split + 1:
            pen = _next_column(pen)
        shape = _draw_stage(pen, number, stage, shape)
    for i, box in enumerate(architecture.head):
        _arrow_down(pen, SHAPE_GAP if i == 0 else GAP, shape if i == 0 else None)
        _draw_box(pen, box)
    _arrow_down(pen, GAP)
    pen.y += 0.1
    axes.text(pen.x, pen.y, "logits", fontsize=FONT - 1, ha="center", va="center")
    return figure


def _stage_height(stage: tuple[BlockDrawing, ...]) -> float:
    return sum(
        SHAPE_GAP
        + 2 * FRAME_PAD
        + LABEL_HEIGHT
        + len(block.branch) * (BOX[1] + GAP)
        + (2 * PLUS_RADIUS if block.shortcut != "none" else 0)
        for block in stage
    )


def _balanced_split(heights: list[float], stem: float, head: float) -> int:
    """The number of stages in the left column that gives the lowest figure."""

    def tallest(split: int) -> float:
        return max(stem + sum(heights[:split]), sum(heights[split:]) + head)

    return min(range(len(heights) + 1), key=tallest)


def _draw_stage(
    pen: _Pen, number: int, stage: tuple[BlockDrawing, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Draws a stage below the pen; returns its output shape."""
    blocks = sum(block.repeats for block in stage)
    first = 1
    for block in stage:
        _arrow_down(pen, SHAPE_GAP, shape)
        name = f"stage {number}"
        if blocks > 1:
            last = first + block.repeats - 1
            name += f", block {first}" if block.repeats == 1 else f", blocks {first} to {last}"
        _draw_block(pen, block, name)
        shape = block.branch[-1].output_shape
        first += block.repeats
    return shape


def _draw_block(pen: _Pen, block: BlockDrawing, name: str) -> None:
    top = pen.y
    height = _stage_height((block,)) - SHAPE_GAP
    frame = FancyBboxPatch(
        (pen.x - BOX[0] / 2 - 0.15, top),
        COLUMN_WIDTH - LEFT + BOX[0] / 2 - 0.1,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=_FILLS["frame"],
        edgecolor="#CCCCCC",
        zorder=0,
    )
    pen.axes.add_patch(frame)
    right = pen.x - 0.37 + COLUMN_WIDTH - LEFT
    times = f"  x {block.repeats}" if block.repeats > 1 else ""
    pen.axes.text(
        right, top + 0.12, name + times, fontsize=FONT - 2, ha="right", va="center", weight="bold"
    )
    _line(pen.axes, [(pen.x, top), (pen.x, top + FRAME_PAD)])
    pen.y = top + FRAME_PAD
    branch_y = pen.y + LABEL_HEIGHT / 2
    for i, box in enumerate(block.branch):
        _arrow_down(pen, LABEL_HEIGHT if i == 0 else GAP)
        _draw_box(pen, box)
    if block.shortcut != "none":
        _arrow_down(pen, GAP)
        _draw_addition(pen, block, branch_y)
    _line(pen.axes, [(pen.x, pen.y), (pen.x, top + height)])
    pen.y = top + height


def _draw_addition(pen: _Pen, block: BlockDrawing, branch_y: float) -> None:
    """Draws the addition, and the shortcut from `branch_y` to it."""
    axes, y = pen.axes, pen.y + PLUS_RADIUS
    lane = pen.x + SHORTCUT_X
    color = COLORS[1]
    path = [(pen.x, branch_y), (lane, branch_y), (lane, y)]
    _line(axes, path, color, dashed=block.shortcut == "pad")
    _arrow(axes, (lane, y), (pen.x + PLUS_RADIUS, y), color)
    middle = (branch_y + y) / 2
    if block.projection is not None:
        half = _Pen(axes, lane, middle - BOX[1] / 2)
        _draw_box(half, block.projection, PROJECTION_WIDTH, color)
    else:
        words = "identity" if block.shortcut == "identity" else "every 2nd pixel,\nzero channels"
        style = {"fontsize": FONT - 2, "color": color, "ha": "right", "va": "center"}
        axes.text(lane - 0.08, middle, words, **style)
    axes.add_patch(Circle((pen.x, y), PLUS_RADIUS, facecolor="white", edgecolor="black", zorder=3))
    axes.text(pen.x, y + 0.005, "+", fontsize=FONT, ha="center", va="center_baseline", zorder=4)
    words = f"add, {block.activation}"
    axes.text(pen.x - 0.2, y, words, fontsize=SMALL + 0.5, ha="right", va="center")
    pen.y = y + PLUS_RADIUS


def _draw_box(pen: _Pen, box: Box, width: float = BOX[0], edge: str = "#444444") -> None:
    kind = "linear" if "linear" in box.text else "pool" if "pool" in box.text else "conv"
    pen.axes.add_patch(
        FancyBboxPatch(
            (pen.x - width / 2, pen.y),
            width,
            BOX[1],
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=_FILLS[kind],
            edgecolor=edge,
            zorder=2,
        )
    )
    params = f"{box.params:,} parameters" if box.params else ""
    below = "; ".join(part for part in (box.after, params) if part)
    if width < BOX[0]:  # the narrow box of a shortcut
        below = below.replace(" parameters", "")
    middle = pen.y + BOX[1] / 2
    text_y = middle - 0.085 if below else middle
    pen.axes.text(pen.x, text_y, box.text, fontsize=FONT - 2, ha="center", va="center", zorder=3)
    small = {"fontsize": SMALL, "color": "#444444", "ha": "center", "va": "center", "zorder": 3}
    pen.axes.text(pen.x, middle + 0.105, below, **small)
    pen.y += BOX[1]


def _next_column(pen: _Pen) -> _Pen:
    """Draws the line from the bottom of the left column to the top of the right one."""
    between, top = pen.x - LEFT + COLUMN_WIDTH + 0.02, TITLE_HEIGHT + 0.1
    right = pen.x + COLUMN_WIDTH
    foot = pen.y + 0.12
    _line(pen.axes, [(pen.x, pen.y), (pen.x, foot), (between, foot), (between, top), (right, top)])
    return _Pen(pen.axes, right, top)


def _write_shape(pen: _Pen, shape: tuple[int, ...], before: str = "") -> None:
    text = before + " x ".join(map(str, shape))
    pen.axes.text(pen.x, pen.y, text, fontsize=FONT - 1, ha="center", va="center")
    pen.y += 0.1


def _arrow_down(pen: _Pen, length: float, shape: tuple[int, ...] | None = None) -> None:
    _arrow(pen.axes, (pen.x, pen.y), (pen.x, pen.y + length), "black")
    if shape is not None:
        text, y = " x ".join(map(str, shape)), pen.y + length / 2 - 0.02
        pen.axes.text(pen.x + 0.1, y, text, fontsize=SMALL + 0.5, color=GREY, va="center")
    pen.y += length


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": 1.2,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 9,
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=2)


def _line(
    axes: Axes, points: list[tuple[float, float]], color: str = "black", dashed: bool = False
) -> None:
    x, y = zip(*points, strict=True)
    # Not snapped to whole pixels, as arrows are not: the two would not line up.
    axes.plot(x, y, color=color, lw=1.2, ls="--" if dashed else "-", zorder=1, snap=False)
