import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from flax_resnet.__main__ import main
from flax_resnet.config.load import load_config, to_json
from flax_resnet.plots import curves as plots
from flax_resnet.plots.curves import ACCURACY, LOSS, Measure
from flax_resnet.process.errors import UserError
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import Row

ROOT = Path(__file__).parents[2]
HEADER = "epoch,train_loss,train_accuracy,test_loss,test_accuracy\n"


def make_rows(epochs: int, sets: tuple[str, ...] = ("train", "test")) -> list[Row]:
    rows: list[Row] = []
    for epoch in range(1, epochs + 1):
        row: Row = {"epoch": epoch, "step": 7 * epoch, "learning_rate": 0.1}
        row |= {"seconds": 2.5, "images_per_second": 80.0}
        for name in sets:
            row |= {f"{name}_loss": 2 / epoch, f"{name}_accuracy": 1 - 0.5 / epoch}
        rows.append(row)
    return rows


def make_run(path: Path, rows: list[Row], **changes: object) -> RunFolder:
    path.mkdir(parents=True)
    overrides = [f"--config.{field}={value}" for field, value in changes.items()]
    (path / "config.json").write_text(to_json(load_config(ROOT / "configs/base.py", overrides)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder(path)


def legend_of(figure: Figure) -> list[str]:
    legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    assert legend is not None
    figure.draw_without_rendering()
    return [text.get_text() for text in legend.get_texts()]


def drawn(figure: Figure, axes: int = 0) -> list[list[float]]:
    return [np.asarray(line.get_ydata()).tolist() for line in figure.axes[axes].get_lines()]


def test_draw_run_writes_two_pictures_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_rows(3))
    before = set(run.path.iterdir())
    paths = plots.draw_run(run, "paper")
    assert paths == [run.path / "loss.png", run.path / "accuracy.png"]
    assert set(run.path.iterdir()) - before == set(paths)
    for path in paths:
        picture = imread(path)
        assert picture.shape[0] > 500 and picture.shape[1] > 800
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50


def test_drawing_again_replaces_the_pictures(tmp_path: Path) -> None:
    rows = make_rows(4)
    run = make_run(tmp_path / "run", rows[:2])
    old = [path.read_bytes() for path in plots.draw_run(run, None)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    new = [path.read_bytes() for path in plots.draw_run(run, None)]
    assert all(a != b for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize(
    ("measure", "axis", "values"),
    [
        (LOSS, "cross-entropy loss", [2.0, 1.0]),
        (ACCURACY, "accuracy (%)", [50.0, 75.0]),
    ],
)
def test_train_and_test_are_drawn_in_the_axis_unit(
    measure: Measure, axis: str, values: list[float]
) -> None:
    figure = plots.run_figure(measure, make_rows(2), "title", 50)
    (axes,) = figure.axes
    assert legend_of(figure) == ["train", "test"]
    assert drawn(figure) == [values, values]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", axis)
    assert axes.get_title(loc="left") == "title"


def test_train_and_test_differ_without_colour() -> None:
    figure = plots.run_figure(LOSS, make_rows(2), "title", 50)
    train, test = figure.axes[0].get_lines()
    assert train.get_marker() != test.get_marker()
    assert (train.is_dashed(), test.is_dashed()) == (True, False)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures drawn, in place of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, _: figures.append(figure))
    return figures


def test_title_is_the_runs_name_and_its_last_test_result(
    tmp_path: Path, saved: list[Figure]
) -> None:
    run = make_run(tmp_path / "my_$net$", make_rows(2), dataset="/data/my_$x$.npz")
    plots.draw_run(run, None)
    assert [figure.axes[0].get_title(loc="left") for figure in saved] == [
        "my_$net$ on my_$x$.npz\ntest loss 1.0000 after epoch 2",
        "my_$net$ on my_$x$.npz\ntest accuracy 75.00% after epoch 2",
    ]


def test_title_of_a_run_whose_test_loss_was_not_finite(tmp_path: Path, saved: list[Figure]) -> None:
    rows = [
        row | {"test_loss": value} for row, value in zip(make_rows(2), (1e30, None), strict=True)
    ]
    plots.draw_run(make_run(tmp_path / "a", rows[:1]), None)
    plots.draw_run(make_run(tmp_path / "b", rows), None)
    assert saved[0].axes[0].get_title(loc="left").endswith("test loss 1e+30 after epoch 1")
    assert saved[2].axes[0].get_title(loc="left").endswith("test loss not finite after epoch 2")


def test_reference_is_drawn_only_where_the_config_names_one(
    tmp_path: Path, saved: list[Figure]
) -> None:
    make_run(tmp_path / "revised", make_rows(2), reference_log="paper")
    make_run(tmp_path / "mine", make_rows(2))
    for name in ("revised", "mine"):
        assert main(["plot", "--workdir", str(tmp_path / name)]) == 0
    assert [len(figure.axes[0].get_lines()) for figure in saved] == [4, 4, 2, 2]


def test_names_that_do_not_print_are_drawn_escaped(tmp_path: Path) -> None:
    name = "a\x1b[31m\udcff"
    runs = [make_run(tmp_path / name, make_rows(2)), make_run(tmp_path / "b", make_rows(2))]
    output = tmp_path / "both.svg"
    plots.draw_comparison(runs, output)
    ElementTree.parse(output)
    assert "a\\x1b[31m\\udcff" in output.read_text()
    plots.draw_comparison(runs[:1], output)
    ElementTree.parse(output)


def test_validation_is_drawn_where_there_is_one() -> None:
    figure = plots.run_figure(LOSS, make_rows(2, ("train", "test", "val")), "title", 50)
    assert legend_of(figure) == ["train", "validation", "test"]


@pytest.mark.parametrize("reference_log", [None, "paper"])
def test_one_epoch_shows_as_points(reference_log: str | None, tmp_path: Path) -> None:
    plots.draw_run(make_run(tmp_path / "run", make_rows(1)), reference_log)
    figure = plots.run_figure(ACCURACY, make_rows(1), "title", 50)
    for line in figure.axes[0].get_lines():
        assert line.get_marker() != "None" and line.get_markevery() == [0]
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]


def test_value_that_was_not_finite_leaves_a_gap() -> None:
    rows = make_rows(40)
    for epoch in (20, 22, 40):
        rows[epoch - 1]["test_loss"] = None
    figure = plots.run_figure(LOSS, rows, "title", 50)
    train, test = figure.axes[0].get_lines()
    gaps = np.flatnonzero(np.isnan(np.asarray(test.get_ydata(), float))) + 1
    assert gaps.tolist() == [20, 22, 40]
    assert np.isfinite(np.asarray(train.get_ydata(), float)).all()
    markevery = test.get_markevery()
    assert isinstance(markevery, list) and 21 - 1 in markevery  # no line reaches epoch 21


def test_run_without_a_finite_value_is_drawn(tmp_path: Path) -> None:
    rows = [row | {"train_loss": None, "test_loss": None} for row in make_rows(3)]
    plots.draw_run(make_run(tmp_path / "run", rows), None)


def test_spike_does_not_flatten_the_other_losses() -> None:
    rows = make_rows(30)
    rows[10]["test_loss"] = 1e30
    figure = plots.run_figure(LOSS, rows, "title", 50)
    assert figure.axes[0].get_ylim() == pytest.approx((0, 2.12))


def test_accuracy_axis_ends_at_100_percent() -> None:
    low, high = plots.run_figure(ACCURACY, make_rows(30), "title", 50).axes[0].get_ylim()
    assert low == 40
    assert 100 < high < 101


def test_paper_reference_is_the_authors_run() -> None:
    reference = plots.read_reference("paper")
    assert [row["epoch"] for row in reference.rows] == list(range(1, 51))
    assert reference.rows[-1] == {
        "epoch": 50,
        "train_loss": 0.0442,
        "train_accuracy": pytest.approx(0.9838),
        "test_loss": 0.4456,
        "test_accuracy": pytest.approx(0.9084),
    }


def test_paper_reference_is_drawn_behind() -> None:
    reference = plots.read_reference("paper")
    figure = plots.run_figure(ACCURACY, make_rows(2), "title", 50, reference)
    assert legend_of(figure) == ["train", "test", "paper, train", "paper, test"]
    own, _, _, paper = figure.axes[0].get_lines()
    assert np.asarray(paper.get_ydata())[-1] == pytest.approx(90.84)
    assert paper.get_zorder() < own.get_zorder()
    assert paper.get_linewidth() < own.get_linewidth()


@pytest.mark.parametrize(("epochs", "last"), [(3, 5), (7, 7), (60, 50)])
def test_reference_is_drawn_as_far_as_the_run_will_go(epochs: int, last: int) -> None:
    reference = plots.read_reference("paper")
    figure = plots.run_figure(LOSS, make_rows(epochs), "title", 5, reference)
    assert np.asarray(figure.axes[0].get_lines()[-1].get_xdata())[-1] == last


def test_reference_file_is_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "_other.csv"
    path.write_text("\ufeff" + HEADER + "1, 1.5, 40, 1.4, 45\r\n", encoding="utf-8")
    reference = plots.read_reference(str(path))
    figure = plots.run_figure(LOSS, make_rows(2), "title", 50, reference)
    assert legend_of(figure)[-1] == "_other, test"
    assert reference.rows[0]["test_accuracy"] == 0.45


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'epoch'"),
        ("epoch,train_loss,train_accuracy,test_loss\n1,1,50,1\n", "no column 'test_accuracy'"),
        (HEADER, "no epochs"),
        (HEADER + "1,1.5,40,1.4\n", "line 2: test_accuracy is None"),
        (HEADER + "1,1.5,40,1.4,45\n2,x,40,1.4,45\n", "line 3: train_loss is 'x'"),
        (HEADER + "1,nan,40,1.4,45\n", "train_loss is 'nan'"),
        (HEADER + "1,1.5,40,-1,45\n", "test_loss is '-1'"),
        (HEADER + "1,1.5,140,1.4,45\n", "train_accuracy is '140': it must be a percentage"),
        (HEADER + "1,1.5,0.4,1.4,0.45\n", "accuracies must be in percent"),
        (HEADER + "1.5,1.5,40,1.4,45\n", "epoch is '1.5'"),
        (HEADER + "2,1.5,40,1.4,45\n1,1.5,40,1.4,45\n", "whole number above 2"),
    ],
)
def test_broken_reference_is_named_with_its_fault(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        plots.read_reference(str(path))
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_reference_that_is_no_text_or_missing_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "picture.csv"
    binary.write_bytes(b"\x89PNG\xff\xfe\x00")
    for path in (binary, tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(UserError, match=path.name):
            plots.read_reference(str(path))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/resnet20"], ["resnet20"]),
        (["runs/a/seed0", "runs/a/seed1"], ["seed0", "seed1"]),
        (["runs/a/seed0", "runs/b/seed0", "c"], ["a/seed0", "b/seed0", "c"]),
        (["runs/a/x/seed0", "runs/b/x/seed0"], ["a/x/seed0", "b/x/seed0"]),
        (["runs/a/", "runs/b/../c"], ["a", "c"]),
    ],
)
def test_names_are_the_shortest_that_differ(paths: list[str], names: list[str]) -> None:
    assert plots.distinguishing_names([Path(path) for path in paths]) == names


def test_run_given_twice_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        plots.distinguishing_names([Path("runs/a"), Path("runs/b/../a")])
    assert caught.value.code == "conflict"


def test_comparison_has_both_measures_of_every_run() -> None:
    figure = plots.comparison_figure({"_a": make_rows(3), "b$x$": make_rows(2)}, "2 runs")
    assert legend_of(figure) == ["_a", "b$x$", "test", "train"]
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == (LOSS.axis, ACCURACY.axis)
    assert [len(values) for values in drawn(figure, 0)] == [3, 3, 2, 2]
    assert drawn(figure, 1)[3] == [50.0, 75.0]
    train, test, other, _ = loss.get_lines()
    assert train.get_color() == test.get_color() != other.get_color()
    assert train.is_dashed() and not test.is_dashed()
    assert train.get_linewidth() < test.get_linewidth()


@pytest.mark.parametrize(("seconds", "scale"), [(30.0, "linear"), (60.0, "log")])
def test_comparison_against_time_has_the_minutes_of_each_run(seconds: float, scale: str) -> None:
    slow = [row | {"seconds": seconds} for row in make_rows(2)]
    figure = plots.comparison_figure({"a": make_rows(3), "b": slow}, "2 runs", against="time")
    for axes in figure.axes:
        assert axes.get_xlabel() == "training time (min)"
        assert (axes.get_xlim()[0] == 0) == (scale == "linear")
        assert axes.get_xscale() == scale
        first, *_, last = axes.get_lines()
        np.testing.assert_allclose(np.asarray(first.get_xdata(), float), [2.5 / 60, 5 / 60, 0.125])
        np.testing.assert_allclose(
            np.asarray(last.get_xdata(), float), [seconds / 60, seconds / 30]
        )


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")]
)
def test_comparison_is_written_in_the_format_of_its_name(
    tmp_path: Path, suffix: str, start: bytes
) -> None:
    runs = [make_run(tmp_path / name, make_rows(3)) for name in "ab"]
    output = tmp_path / f"both{suffix}"
    assert plots.draw_comparison(runs, output) == output
    assert output.read_bytes().startswith(start)


def test_command_redraws_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", make_rows(2)).path
    assert main(["plot", "--workdir", str(run)]) == 0
    paths = capsys.readouterr().out.split()
    assert paths == [str(run / "loss.png"), str(run / "accuracy.png")]
    assert all(Path(path).stat().st_size > 5000 for path in paths)


def test_command_compares_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a", make_rows(2))
    make_run(tmp_path / "b", make_rows(2))
    assert main(["plot", "--workdir", "a", "b"]) == 0
    assert capsys.readouterr().out == "comparison.png\n"
    assert (tmp_path / "comparison.png").exists()
    assert not (tmp_path / "a/loss.png").exists()


def test_command_draws_one_run_into_a_given_file(tmp_path: Path) -> None:
    make_run(tmp_path / "a", make_rows(2))
    output = tmp_path / "a.svg"
    assert main(["plot", "--workdir", str(tmp_path / "a"), "--output", str(output)]) == 0
    assert output.exists() and not (tmp_path / "a/loss.png").exists()


def test_run_without_an_epoch_is_named_and_the_others_are_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: list[Figure]
) -> None:
    runs = [make_run(tmp_path / name, make_rows(2)) for name in ("a", "b")]
    runs.insert(1, make_run(tmp_path / "young", []))
    plots.draw_comparison(runs, tmp_path / "x.png")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'young'} has no epoch yet and is left out"
    ]
    assert legend_of(saved[0])[:2] == ["a", "b"]
    assert saved[0].get_suptitle() == "2 runs on cifar10"


@pytest.mark.parametrize(
    ("names", "output", "code", "field"),
    [
        (["young"], "x.png", "missing", "young"),
        (["good"], "good.jpg", "invalid", "good.jpg"),
        (["good", "good"], "x.png", "conflict", "good"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    output: str,
    code: str,
    field: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("good"), make_rows(2))
    young = make_run(Path("young"), [])
    with pytest.raises(UserError) as caught:
        plots.draw_comparison([RunFolder(name) for name in names], Path(output))
    assert (caught.value.code, caught.value.field) == (code, field)
    with pytest.raises(UserError) as caught:
        plots.draw_run(young, None)
    assert (caught.value.code, caught.value.field) == ("missing", "young")


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["good", "nothing"], ["good", "--output", "missing/good.png"]]
)
def test_command_that_cannot_draw_ends_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "good", make_rows(2))
    assert main(["plot", "--workdir", *arguments]) == 2
