"""The whole command: a report from written runs, one real run, and stops with a stub."""

import re
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread
from ml_collections import ConfigDict

from flax_resnet.__main__ import main
from flax_resnet.paper import SECTION_NAMES, training
from flax_resnet.paper.plan import planned_runs, seed_run
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.loop import Outcome
from tests.paper_runs import make_rows, write_run

OVERRIDES = [
    "--config.dataset=digits",
    "--config.batch_size=32",
    "--config.eval_batch_size=40",
    "--config.conv=native",
    "--config.design.stage_sizes=(1,)",
    "--config.design.stage_channels=(4,)",
    "--config.design.kernel_sizes=(3,)",
    "--config.design.shortcut_kernels=(1,)",
    "--config.design.pool_size=0",
]
SMALL = ["--train-images=64", "--test-images=40", *OVERRIDES]
HEADINGS = (
    "At a glance",
    "Figure 1",
    "Figure 3",
    "Figure 4",
    "Figures 5 and 6",
    "Optimizers",
    "Results",
    "Design space",
    "How this was made",
)
COUNTS = (
    "4,903,242",
    "6,279,498",
    "4,968,778",
    "11,173,962",
    "11,689,512",
    "21,797,672",
    "25,557,032",
    "44,549,160",
    "60,192,808",
    "90.84%",
    "98.38%",
)
FIGURES = ("figure1", "figure4", "figure5", "figure6", "optimizers", "design")


@pytest.fixture(scope="module")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete report on reduced runs; not to be changed."""
    out = tmp_path_factory.mktemp("paper")
    for i, run in enumerate(planned_runs(SECTION_NAMES, 2)):
        accuracies = [0.95 - 0.05 * i]
        write_run(out / "runs", run, make_rows(accuracies, accuracies), OVERRIDES)
    assert main(["paper", "--report-only", "--seeds=2", f"--out={out}", *SMALL]) == 0
    return out


def read_report(out: Path) -> str:
    return (out / "report.md").read_text().replace("\\", "")


def svg_text(path: Path) -> str:
    """The words of an SVG; matplotlib draws them as shapes, and keeps them as comments."""
    return " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_report_has_every_section_with_its_counts(reproduction: Path):
    for name in ("report.md", "report.html"):
        text = (reproduction / name).read_text().replace("\\", "")
        for heading in HEADINGS:
            assert heading in text
        for count in COUNTS:
            assert count in text
        assert "digits" in text and "1 of 50" in text and "1 of 164" in text
        assert "Incomplete" not in text


def test_figures_are_files_and_stand_in_the_page(reproduction: Path):
    page = (reproduction / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == len(FIGURES)
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page needs another file"
    markdown = (reproduction / "report.md").read_text()
    for name in FIGURES:
        png, svg = (reproduction / f"figures/{name}.{ending}" for ending in ("png", "svg"))
        height, width, _ = imread(png).shape
        assert min(height, width) > 500
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        assert f"(figures/{name}.png)" in markdown and f"(figures/{name}.svg)" in markdown


def test_titles_say_that_the_runs_are_reduced(reproduction: Path):
    for name, epochs in (("figure1", 164), ("figure5", 50), ("figure6", 50), ("optimizers", 50)):
        words = svg_text(reproduction / f"figures/{name}.svg")
        assert f"reduced: 1 of {epochs} epochs, 64 training / 40 test images" in words
        assert "digits" in words


def test_reduced_runs_decide_no_claim(reproduction: Path):
    text = read_report(reproduction)
    assert "Adam is first to" in text
    assert "holds" not in text and "does not hold" not in text


def test_report_is_the_same_when_written_again(tmp_path: Path):
    write_run(tmp_path / "runs", seed_run(0), make_rows([0.5], [0.5]), OVERRIDES)
    command = ["paper", "--report-only", "--only", "figure5-6", f"--out={tmp_path}", *SMALL]
    assert main(command) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}
    assert len(before) == 2 + 4 + 4  # reports, figures, the run
    assert main(command) == 0
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*")} == before


def test_one_real_run_is_trained_kept_and_resumed(tmp_path: Path):
    command = ["paper", "--only", "figure5-6", f"--out={tmp_path}", *SMALL]
    metrics = tmp_path / "runs" / seed_run(0).name / "metrics.jsonl"
    assert main([*command, "--epochs=1"]) == 0
    (first,) = read_metrics(metrics)
    assert (first["epoch"], first["step"]) == (1, 2)
    assert "After epoch 1 of 50" in read_report(tmp_path)
    assert main([*command, "--epochs=1"]) == 0
    assert main([*command, "--epochs=2", "--train-images=48"]) == 2  # not the same images
    assert read_metrics(metrics) == [first]
    assert main([*command, "--epochs=2"]) == 0
    assert [row["epoch"] for row in read_metrics(metrics)] == [1, 2]
    assert read_metrics(metrics)[0] == first


def test_stopped_command_reports_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def train(config: ConfigDict, workdir: Path, *, until_epoch: int, stop: Any) -> Outcome:
        calls.append((workdir.name, until_epoch))
        if len(calls) == 2:
            return Outcome(signal.SIGTERM, 0)
        assert workdir.name == seed_run(0).name
        write_run(workdir.parent, seed_run(0), make_rows([0.5], [0.5]), OVERRIDES)
        return Outcome(None, 2)

    monkeypatch.setattr(training, "train_and_evaluate", train)
    command = ["paper", "--only", "figure5-6", "optimizers", "--epochs=1", f"--out={tmp_path}"]
    assert main([*command, *SMALL]) == 128 + signal.SIGTERM
    assert calls == [("revised_adam_seed0", 1), ("revised_sgd", 1)]
    report = read_report(tmp_path)
    assert "not trained yet: revised_sgd, revised_momentum, revised_nesterov" in report
    assert "Reduced, so that they decide no claim: revised_adam_seed0." in report


def test_report_alone_says_that_nothing_is_trained(tmp_path: Path):
    assert main(["paper", "--only", "figure1", "--report-only", f"--out={tmp_path}"]) == 0
    assert "not trained yet: plain20, plain56, resnet20, resnet56" in read_report(tmp_path)
    assert not (tmp_path / "runs").exists()


def test_names_that_do_not_print_are_escaped(tmp_path: Path):
    note = "a\x1b<b>"
    write_run(tmp_path / "runs", seed_run(0), make_rows([0.5], [0.5]), OVERRIDES)
    command = ["paper", "--report-only", "--only", "figure5-6", "--data-note", note]
    assert main([*command, f"--out={tmp_path}", *SMALL]) == 0
    ElementTree.parse(tmp_path / "figures/figure5.svg")
    for name in ("report.md", "report.html", "figures/figure5.svg"):
        text = (tmp_path / name).read_text()
        assert "\x1b" not in text and "x1b" in text


@pytest.mark.parametrize("flag", ["--epochs=0", "--train-images=-3", "--seeds=none"])
def test_bad_number_is_named_with_its_flag(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["paper", f"--out={tmp_path}", flag])
    assert ended.value.code == 2
    assert f"argument {flag.partition('=')[0]}:" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["--config.seed=1", "--config.batch_sze=1"])
def test_bad_override_ends_before_anything_is_written(override: str, tmp_path: Path):
    assert main(["paper", f"--out={tmp_path}", override]) == 2
    assert not list(tmp_path.iterdir())
