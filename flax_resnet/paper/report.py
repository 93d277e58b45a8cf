"""Builds the sections from the existing runs, and writes the report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flax_resnet.paper.calibration import read_calibration
from flax_resnet.paper.design_space import design_section
from flax_resnet.paper.figure1 import degradation_section
from flax_resnet.paper.figure3 import imagenet_section
from flax_resnet.paper.figure4 import architecture_section
from flax_resnet.paper.figure5_6 import curves_section
from flax_resnet.paper.history import Histories, read_histories, scope
from flax_resnet.paper.optimizer_choice import optimizers_section
from flax_resnet.paper.plan import PYTORCH_RUN, PlannedRun, planned_runs, seed_run
from flax_resnet.paper.provenance import provenance_section
from flax_resnet.paper.rates import tuned_runs
from flax_resnet.paper.results import results_section
from flax_resnet.plots.style import save_figure
from flax_resnet.process.files import make_folder, write_text
from flax_resnet.process.machine import machine
from flax_resnet.report.document import Paragraph, Picture, Section
from flax_resnet.report.html import to_html
from flax_resnet.report.markdown import FIGURES, to_markdown
from flax_resnet.report.table import Table
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_epochs

TITLE = "Residual Network Design, reproduced"
RUNS = "runs"  # folder of the runs, next to the report


def write_report(
    out: Path,
    names: Sequence[str],
    seeds: int,
    until_epoch: int | None = None,
    data_note: str | None = None,
) -> list[Path]:
    """Writes report.md, report.html and the figures, from the runs below `out`.

    Args:
      out: folder of the report.
      names: of the sections, some of SECTION_NAMES.
      seeds: number of seeds for the results.
      until_epoch: the last epoch to report; None: all.
      data_note: the user's own description of the images.

    Returns:
      The two reports.

    Raises:
      UserError: a run is corrupt, or a file cannot be written.
    """
    runs = planned_runs(names, seeds)
    histories = read_histories(out / RUNS, runs, until_epoch, data_note)
    tuned = tuned_runs(histories)
    runs += tuned
    histories |= read_histories(out / RUNS, tuned, until_epoch, data_note)
    makers = section_makers(histories, seeds, out / RUNS)
    sections = [makers[name]() for name in names]
    sections.insert(0, _at_a_glance(sections, runs, histories))
    sections.append(provenance_section(runs, histories, machine()))
    svgs = _save_pictures(out / FIGURES, sections)
    paths = [out / "report.md", out / "report.html"]
    write_text(paths[0], to_markdown(TITLE, sections))
    write_text(paths[1], to_html(TITLE, sections, svgs))
    return paths


def section_makers(
    histories: Histories, seeds: int, folder: Path
) -> dict[str, Callable[[], Section]]:
    """Name of each section -> the function that builds it; `folder` holds the runs."""
    own = folder / seed_run(0).name
    pytorch = read_epochs(RunFolder(folder / PYTORCH_RUN))
    return {
        "figure1": lambda: degradation_section(histories),
        "figure3": imagenet_section,
        "figure4": architecture_section,
        "figure5-6": lambda: curves_section(histories, pytorch),
        "optimizers": lambda: optimizers_section(histories),
        "results": lambda: results_section(histories, seeds, read_calibration(own)),
        "design": design_section,
    }


def _at_a_glance(
    sections: Sequence[Section], runs: Sequence[PlannedRun], histories: Histories
) -> Section:
    """The outcome of every section, and what is missing or reduced."""
    blocks: list[Any] = [
        Paragraph(
            "The figures, tables and claims of the paper, reproduced by python -m flax_resnet "
            "paper."
        )
    ]
    missing = [run.name for run in runs if run.name not in histories]
    if missing:
        text = f"Incomplete: not trained yet: {', '.join(missing)}. The same command resumes."
        blocks.append(Paragraph(text))
    short = [run.name for run in runs if run.name in histories and scope([histories[run.name]])]
    if short:
        text = f"Reduced, so that they decide no claim: {', '.join(short)}."
        blocks.append(Paragraph(text))
    rows = [(section.title, section.outcome) for section in sections]
    blocks.append(Table(("section", "outcome"), rows, "ll", caption="Outcomes"))
    return Section("outcomes", "At a glance", "", tuple(blocks))


def _save_pictures(folder: Path, sections: Sequence[Section]) -> dict[str, bytes]:
    """Writes each picture as .png and .svg; returns the SVGs by name."""
    make_folder(folder, "--out")
    svgs = {}
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                save_figure(block.figure, folder / f"{block.name}.png")
                path = folder / f"{block.name}.svg"
                save_figure(block.figure, path)
                svgs[block.name] = path.read_bytes()
    return svgs
