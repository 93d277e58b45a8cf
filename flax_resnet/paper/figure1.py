"""Figure 1: deeper plain nets train worse; and Figure 2's identity shortcut, the cure."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from flax_resnet.paper.history import Histories, History, figure_title, percent, scope
from flax_resnet.paper.plan import PLAIN_AND_RESIDUAL
from flax_resnet.plots.style import COLORS, DASHES, DPI, FONT, MARKERS, style_axes
from flax_resnet.report.document import Block, Paragraph, Picture, Section
from flax_resnet.report.table import Table

TITLE = "Figure 1: degradation, and the shortcut that cures it"
KINDS = {"plain": "plain", "resnet": "ResNet"}
DEPTHS = ("20", "56")
# Percent; cuts off the first epochs of a long run, as in He's figure, but no network's last ones.
TOP_ERROR = 60.0


def degradation_section(histories: Histories) -> Section:
    """Errors of four networks over iterations, and the effect of 36 more layers on each kind."""
    nets = {name: histories[name] for name in PLAIN_AND_RESIDUAL if name in histories}
    missing = [name for name in PLAIN_AND_RESIDUAL if name not in histories]
    blocks: list[Block] = [
        Paragraph(
            "He's plain-20 and plain-56, and the same networks with the identity shortcuts of "
            "Figure 2 (without parameters), trained with his recipe (section 4.2): SGD with "
            "momentum 0.9, weight decay 1e-4, batch size 128, learning rate 0.1, divided by 10 "
            "after half and three quarters of 164 epochs (64,000 iterations). The training error "
            "is measured on the augmented images during each epoch."
        )
    ]
    if missing:
        blocks.append(Paragraph(f"Not trained yet: {', '.join(missing)}."))
    if not nets:
        return Section("figure1", TITLE, "No network is trained yet.", tuple(blocks))
    title = figure_title("Figure 1: plain and residual networks", list(nets.values()))
    caption = "Training error (left) and test error (right) of plain and residual networks"
    blocks.append(Picture("figure1", caption, error_figure(nets, title)))
    blocks.append(_error_table(nets))
    findings = [_depth_finding(nets, kind) for kind in KINDS]
    findings = [finding for finding in findings if finding]
    blocks += [Paragraph(finding) for finding in findings]
    outcome = " ".join(findings) or f"Not trained yet: {', '.join(missing)}."
    return Section("figure1", TITLE, outcome, tuple(blocks))


def error_percent(accuracy: float) -> float:
    """The error in percent, from an accuracy of 0 to 1."""
    return 100.0 * (1.0 - accuracy)


def compare_depths(shallow: History, deep: History) -> tuple[int, float, float]:
    """The effect of more layers, at the last epoch that both networks have.

    Returns:
      The epoch, and the change in training and test error in percentage points: positive if the
      deeper network is worse.
    """
    epoch = min(shallow.last["epoch"], deep.last["epoch"])
    rows = [next(r for r in h.rows if r["epoch"] == epoch) for h in (shallow, deep)]
    train, test = (
        error_percent(rows[1][field]) - error_percent(rows[0][field])
        for field in ("train_accuracy", "test_accuracy")
    )
    return epoch, train, test


def _depth_finding(nets: Histories, kind: str) -> str | None:
    if any(kind + depth not in nets for depth in DEPTHS):
        return None
    shallow, deep = (nets[kind + depth] for depth in DEPTHS)
    epoch, train, test = compare_depths(shallow, deep)
    if scope([shallow, deep]):
        more = "higher" if train > 0 else "not higher"
        meaning = f"in these reduced runs the deeper net's training error is {more}"
    else:
        shown = "degradation" if train > 0 else "no degradation"
        meaning = shown if kind == "plain" else f"{shown} with shortcuts"
    name = KINDS[kind]
    return (
        f"{name[0].upper()}{name[1:]}-56 against {name}-20 after epoch {epoch}: training error "
        f"{train:+.2f}, test error {test:+.2f} points; {meaning}."
    )


def error_figure(nets: Histories, title: str) -> Figure:
    """Four panels: plain nets on top, residual below; training error left, test error right.

    Args:
      nets: by name, one or more of PLAIN_AND_RESIDUAL.
      title: of the figure.
    """
    figure = Figure(figsize=(10, 8), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for kind, row in zip(KINDS, panels, strict=True):
        for split, axes in zip(("train", "test"), row, strict=True):
            _draw_kind(axes, nets, kind, split)
    long = max(history.last["epoch"] for history in nets.values()) > 5
    highest, highest_last = (
        max(
            error_percent(row[f"{split}_accuracy"])
            for history in nets.values()
            for row in history.rows[first:]
            for split in ("train", "test")
        )
        for first in (0, -1)
    )
    top = min(100, 1.05 * highest)
    panels[0, 0].set_ylim(0, min(top, max(TOP_ERROR, 1.3 * highest_last)) if long else top)
    panels[0, 0].set_xlim(left=0)
    figure.suptitle(title, fontsize=FONT + 1, parse_math=False)
    return figure


def _draw_kind(axes: Axes, nets: Histories, kind: str, split: str) -> None:
    for i, depth in enumerate(DEPTHS):
        history = nets.get(kind + depth)
        if history is None:
            continue
        axes.plot(
            [row["step"] for row in history.rows],
            [error_percent(row[f"{split}_accuracy"]) for row in history.rows],
            color=COLORS[i],
            marker=MARKERS[i],
            markevery=max(1, len(history.rows) // 12),
            markersize=5.5,
            linewidth=1.8,
            linestyle="solid" if i else DASHES["train"],
            label=f"{KINDS[kind]}-{depth}",
        )
    words = "training" if split == "train" else "test"
    style_axes(axes, "iteration", f"{words} error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelbottom=True, labelleft=True)
    if axes.get_lines():
        axes.legend(fontsize=FONT - 1, framealpha=0.9, handlelength=3)


def _error_table(nets: Histories) -> Table:
    rows = []
    for name, history in nets.items():
        errors = np.array([error_percent(row["test_accuracy"]) for row in history.rows])
        rows.append(
            (
                name,
                str(history.last["epoch"]),
                f"{history.last['step']:,}",
                percent(1 - history.last["train_accuracy"]),
                percent(1 - history.last["test_accuracy"]),
                f"{errors.min():.2f}%",
            )
        )
    return Table(
        ("network", "epochs", "iterations", "training error", "test error", "lowest test error"),
        rows,
        caption="Errors after the last epoch trained",
    )
