"""A page on a run, or on several side by side."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flax_resnet.inference.saliency import grad_cam, overlay
from flax_resnet.judging.figures import class_table, confusions, corruption_table, figures_table
from flax_resnet.judging.judge import Judged
from flax_resnet.judging.recipe import data_label, making_section, what_it_is
from flax_resnet.judging.sheets import caption, chosen_images
from flax_resnet.models.stems import first_kernel
from flax_resnet.plots.confusion import confusion_figure
from flax_resnet.plots.curves import (
    ACCURACY,
    LOSS,
    comparison_figure,
    distinguishing_names,
    run_figure,
)
from flax_resnet.plots.reliability import calibration_figure
from flax_resnet.plots.style import svg_of
from flax_resnet.process.files import write_text
from flax_resnet.report.document import Block, Columns, Folded, Gallery, Paragraph, Picture, Section
from flax_resnet.report.html import to_html
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row, read_epochs
from flax_resnet.search.compare import compare_runs
from flax_resnet.search.sweep import results_table, verdicts

_TILES = 16  # images of a gallery
_FILTERS = 64


def write_page(judged: Sequence[Judged], command: str, output: Path) -> None:
    """Writes the page of one run or more to an .html file; `command` is the one that makes it.

    Raises:
      UserError: a file of a run is corrupt, or the page cannot be written.
    """
    names = distinguishing_names([one.workdir for one in judged])
    rows = {
        name: read_epochs(RunFolder(one.workdir)) for name, one in zip(names, judged, strict=True)
    }

    def section(title: str, blocks: Callable[[Judged, str], Sequence[Block]]) -> Section:
        """A column for each run; `blocks` takes a run and a suffix for its pictures' names."""
        columns = [blocks(one, str(number)) for number, one in enumerate(judged)]
        several = (Columns(list(zip(names, columns, strict=True))),)
        anchor = title.split()[0].lower()
        return Section(anchor, title, "", tuple(columns[0]) if len(judged) == 1 else several)

    sections = [
        _glance(judged, rows),
        Section("training", "Training", "", _curves(judged, rows)),
        section("Classes", _classes),
        section("Confidence", _confidence),
        section("Mistakes and doubts", _mistakes),
        section("Saliency and filters", _looks),
        making_section(judged, names, command),
    ]
    if all(one.corrupted for one in judged):
        corrupted = section("Corrupted images", lambda one, _: [corruption_table(one.corrupted)])
        sections.insert(-1, corrupted)
    title = names[0] if len(names) == 1 else f"{len(names)} runs compared"
    svgs = {p.name: svg_of(p.figure, p.name) for s in sections for p in _pictures(s.blocks)}
    write_text(output, to_html(f"{title}, {data_label(judged[0])}", sections, svgs))


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Columns):
            for _, inner in block.columns:
                yield from _pictures(inner)


def _glance(judged: Sequence[Judged], rows: dict[str, list[Row]]) -> Section:
    blocks: list[Block] = []
    for one, (name, epochs) in zip(judged, rows.items(), strict=True):
        text = what_it_is(one, epochs[-1]["epoch"] if epochs else 0)
        blocks.append(Paragraph(f"{name}: {text}"))
    blocks.append(figures_table(judged, list(rows)))
    if len(judged) > 1 and any(rows.values()):
        results = compare_runs([one.workdir for one in judged])
        table = dataclasses.replace(results_table(results), caption="Recipes and results")
        blocks += [table.narrowed(), *map(Paragraph, verdicts(results))]
    return Section("glance", "At a glance", "", tuple(blocks))


def _curves(judged: Sequence[Judged], rows: dict[str, list[Row]]) -> tuple[Block, ...]:
    trained = {name: epochs for name, epochs in rows.items() if epochs}
    if not trained:
        return (Paragraph("No epoch yet."),)
    columns = []
    for measure in (LOSS, ACCURACY):
        title, heading = data_label(judged[0]), measure.field.capitalize()
        if len(rows) == 1:
            (epochs,) = trained.values()
            figure = run_figure(measure, epochs, title, judged[0].model.config.num_epochs)
        else:
            figure = comparison_figure(trained, title, [measure])
        columns.append((heading, [Picture(measure.field, f"{heading} by epoch", figure)]))
    return (Columns(columns),)


def _classes(judged: Judged, suffix: str) -> list[Block]:
    scores = judged.scores
    title = f"Answers, {data_label(judged)}"
    figure = confusion_figure(scores.confusion, scores.class_names, title)
    text = "Images by label and answer; color: the share of the label's images"
    return [
        Picture(f"confusion{suffix}", text, figure),
        Paragraph(f"Most often confused: {confusions(scores, 5)}."),
        Folded(class_table(scores)),
    ]


def _confidence(judged: Judged, suffix: str) -> list[Block]:
    scores, title = judged.scores, f"Confidence, {data_label(judged)}"
    text = "Accuracy by confidence, and the share of the images"
    shown = [("As trained", text, scores.calibration)]
    if scores.scaling is not None:
        temperature, scaled, source = scores.scaling
        text = f"The same, logits divided by the temperature ({source})"
        shown.append((f"With a temperature of {temperature:.3f}", text, scaled))
    columns = []
    for number, (heading, text, measured) in enumerate(shown):
        figure = calibration_figure(measured, title)
        picture = Picture(f"reliability{suffix}_{number}", text, figure)
        error = f"Expected calibration error: {measured.error:.2%}."
        columns.append((heading, [picture, Paragraph(error)]))
    return [Columns(columns)]


def _mistakes(judged: Judged, suffix: str) -> Sequence[Block]:
    return [
        Gallery(title, list(judged.images[places]), [caption(judged, i) for i in places])
        for title, places in chosen_images(judged, _TILES).values()
    ]


def _looks(judged: Judged, suffix: str) -> Sequence[Block]:
    """Grad-CAM of a hit of each class, then of mistakes; the kernels of the first convolution."""
    scores, classes = judged.scores, range(len(judged.model.class_names))
    right = (np.flatnonzero(scores.is_right & (scores.labels == c))[:1] for c in classes)
    chosen = np.concatenate([*right, scores.mistakes])[:_TILES]
    images = judged.images[chosen]
    heat = grad_cam(judged.model, images, scores.predictions[chosen])
    pairs = np.concatenate([images, overlay(images, heat)], axis=2)
    kernels = np.asarray(first_kernel(judged.model.variables["params"]), np.float32)
    kernels = np.moveaxis(kernels, -1, 0)
    largest = np.maximum(np.abs(kernels).max((1, 2, 3), keepdims=True), 1e-12)
    filters = list(np.rint(127.5 * (1 + kernels / largest)).astype(np.uint8)[:_FILTERS])
    return [
        Gallery(
            "Images, and what in them speaks for the answer (Grad-CAM; bright: much)",
            list(pairs),
            [caption(judged, i) for i in chosen],
            side=150,
        ),
        Gallery(
            f"Filters of the first convolution ({len(filters)} of {len(kernels)}); gray is zero",
            filters,
            [""] * len(filters),
            side=44,
        ),
    ]
