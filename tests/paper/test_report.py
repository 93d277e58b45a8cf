"""The whole command at its smallest: nine real trainings of an epoch, and the report of them."""

import os
import re
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from flax_resnet.__main__ import main
from flax_resnet.report.document import Listing, Paragraph, Section, Table
from flax_resnet.report.html import to_html
from flax_resnet.report.markdown import to_markdown
from flax_resnet.runs.metrics_log import read_metrics
from flax_resnet.training.hooks import Bar

SMALL = [
    "--train-images=64",
    "--test-images=40",
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
RUNS = {
    "revised_adam_seed0", "revised_adam_seed1", "revised_sgd", "revised_momentum",
    "revised_nesterov", "plain20", "plain56", "resnet20", "resnet56",
}  # fmt: skip
FIGURES = ("figure1", "figure4", "figure5", "figure6", "optimizers", "design")


@pytest.fixture(scope="module")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete report; not to be changed."""
    out = tmp_path_factory.mktemp("paper")
    assert main(["paper", "--epochs=1", "--seeds=2", f"--out={out}", *SMALL]) == 0
    return out


def svg_text(path: Path) -> str:
    """The words of an SVG; matplotlib draws them as shapes, and keeps them as comments."""
    return " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_everything_is_trained_once(reproduction: Path):
    runs = reproduction / "runs"
    assert {path.name for path in runs.iterdir()} == RUNS
    for name in RUNS:
        (row,) = read_metrics(runs / name / "metrics.jsonl")
        assert (row["epoch"], row["step"]) == (1, 2)


def test_report_has_every_section_with_its_counts(reproduction: Path):
    for name in ("report.md", "report.html"):
        text = (reproduction / name).read_text().replace("\\", "")
        for heading in (
            "At a glance", "Figure 1", "Figure 3", "Figure 4", "Figures 5 and 6", "Optimizers",
            "Results", "Design space", "How this was made",
        ):  # fmt: skip
            assert heading in text
        for count in (
            "4,903,242", "6,279,498", "4,968,778", "11,173,962", "11,689,512", "21,797,672",
            "25,557,032", "44,549,160", "60,192,808", "90.84%", "98.38%",
        ):  # fmt: skip
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


def test_same_command_trains_nothing_again(reproduction: Path, capsys: pytest.CaptureFixture[str]):
    before = {p: p.read_bytes() for p in reproduction.rglob("figures/*")}
    trained = {p: p.stat().st_mtime_ns for p in reproduction.rglob("metrics.jsonl")}
    assert main(["paper", "--epochs=1", "--seeds=2", f"--out={reproduction}", *SMALL]) == 0
    assert capsys.readouterr().out.count("is finished") == len(RUNS)
    assert {p: p.stat().st_mtime_ns for p in reproduction.rglob("metrics.jsonl")} == trained
    assert {p: p.read_bytes() for p in reproduction.rglob("figures/*")} == before


def test_other_images_are_refused_before_training(
    reproduction: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["paper", f"--out={reproduction}", *SMALL, "--train-images=48"]) == 2
    error = capsys.readouterr().err
    assert "config.train_images=64, and now it is 48" in error and "--out" in error


def test_stopped_command_reports_what_there_is_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    dispatches = iter(range(1, 10**6))

    def count_and_stop(*_: object) -> None:
        if next(dispatches) == 3:  # 2 steps per epoch: in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Bar, "after_dispatch", count_and_stop)
    command = ["paper", "--only", "figure5-6", "optimizers", "--epochs=2", f"--out={tmp_path}"]
    assert main([*command, *SMALL]) == 128 + signal.SIGTERM
    assert "run the same command again to resume" in capsys.readouterr().out
    report = (tmp_path / "report.md").read_text().replace("\\", "")
    assert "Incomplete: not trained yet are revised_sgd" in report
    assert "reduced: 1 of 50 epochs" in report
    monkeypatch.undo()
    assert main([*command[:3], *command[4:], *SMALL]) == 0
    output = capsys.readouterr().out
    assert "run 1 of 1: revised_adam_seed0" in output and "resuming from step" in output
    report = (tmp_path / "report.md").read_text().replace("\\", "")
    assert "Incomplete" not in report and "2 of 50" in report


def test_report_alone_says_plainly_that_nothing_is_trained(tmp_path: Path):
    assert main(["paper", "--only", "figure1", "--report-only", f"--out={tmp_path}"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert "Incomplete: not trained yet are plain20, plain56, resnet20, resnet56" in report
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs=0"], "--epochs is 0"),
        (["--train-images=-3"], "--train-images is -3"),
        (["--config.seed=1"], "give --seeds N"),
        (["--config.batch_sze=1"], "did you mean config.batch_size"),
    ],
)
def test_bad_argument_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["paper", f"--out={tmp_path}", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_text_means_itself_in_both_forms():
    section = Section(
        "x",
        "A & B",
        "",
        (
            Paragraph("1 < 2, a|b, *no* `code`"),
            Table("T", ("k", "v"), (("<i>", "1|2"),)),
            Listing("L", "a < b\n  c"),
        ),
    )
    page = to_html("T", [section], {})
    assert "1 &lt; 2" in page and "&lt;i&gt;" in page and "a &lt; b\n  c" in page
    text = to_markdown("T", [section])
    assert r"1 \< 2, a\|b, \*no\* \`code\`" in text
    assert r"| \<i\> | 1\|2 |" in text and "| --- | ---: |" in text
    assert "a < b\n  c" in text
