"""The commands evaluate, compare and report, and the page."""

import base64
import csv
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.__main__ import main
from flax_resnet.config.load import flat_fields, load_config
from flax_resnet.data.load import load_dataset
from flax_resnet.inference.calibration import Calibration
from flax_resnet.inference.model import load
from flax_resnet.judging.corruptions import corrupt
from flax_resnet.judging.judge import judge
from flax_resnet.judging.recipe import command_of
from flax_resnet.judging.sheets import chosen_images
from flax_resnet.plots.reliability import calibration_figure
from flax_resnet.process.errors import UserError
from tests.conftest import tiny_config


class Page(HTMLParser):
    """The page's elements, checked to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def sources(page: Page) -> list[str]:
    return [str(attrs["src"]) for tag, attrs in page.seen if tag == "img"]


def test_a_page_holds_everything_and_loads_nothing(tiny_run, tmp_path, capsys):
    output = tmp_path / "page.html"
    command = ["report", "--workdir", str(tiny_run), "--first", "60", "--output", str(output)]
    assert main(command) == 0 and capsys.readouterr().out == f"{output}\n"
    text = output.read_text()
    page = Page(text)
    images = sources(page)
    assert all(source.startswith("data:image/") for source in images)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "<script" not in text
    assert "@import" not in text and "url(" not in text
    ids = [attrs["id"] for tag, attrs in page.seen if tag == "section"]
    assert ids == ["glance", "training", "classes", "confidence", "mistakes", "saliency", "making"]
    judged = judge(tiny_run, first=60)
    assert f"{judged.scores.accuracy:.2%}" in text and "60" in text
    svgs = [base64.b64decode(x.partition(",")[2]) for x in images if "svg" in x]
    assert len(svgs) == 5 and all(svg.rstrip().endswith(b"</svg>") for svg in svgs)
    assert sum("png" in source or "jpeg" in source for source in images) > 12


def test_pages_of_several_runs_and_of_images_that_are_not_square(wide_run, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(wide_run, copy)
    config = json.loads((copy / "config.json").read_text()) | {"seed": 5}
    (copy / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--workdir", str(wide_run), str(copy), "--corruptions"]) == 0
    text = (tmp_path / "report.html").read_text()
    Page(text)
    assert "2 runs compared" in text and "run, copy" in text and "by severity" in text


@pytest.mark.parametrize("output", ["page.pdf", "metrics.jsonl"])
def test_a_page_is_no_other_file(tiny_run, output, capsys):
    assert main(["report", "--workdir", str(tiny_run), "--output", output]) == 2
    assert "--output" in capsys.readouterr().err


def test_command_makes_the_config_again():
    config = tiny_config(cutout=4, flip=True)
    words = shlex.split(command_of(config, Path("runs/a b")).replace("\\\n", ""))
    assert words[:6] == ["python", "-m", "flax_resnet", "train", "--config", "quickstart"]
    assert words[6:8] == ["--workdir", "runs/a b"]
    assert flat_fields(load_config(words[5], words[8:])) == flat_fields(config)
    assert len(command_of(load_config("resnet20"), Path("x")).split()) == 8


def test_evaluate_has_every_figure_as_json_and_csv(tiny_run, capsys):
    runs = [str(tiny_run)] * 2
    assert main(["evaluate", "--workdir", *runs, "--json", "--corruptions", "--first", "50"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0]["run"] == str(tiny_run)
    figures = lines[0]
    low, high = figures["accuracy_interval95"].values()
    assert low < figures["test_accuracy"] < high and figures["images"] == 50
    assert set(figures["corruptions"]) >= {"noise", "jpeg", "shift"}
    images = load_dataset("digits").test_images[:50]
    right = load(tiny_run).predict(corrupt(images, "shift", 5))
    labels = load_dataset("digits").test_labels[:50]
    assert figures["corruptions"]["shift"][4] == (right == labels).mean()
    assert main(["evaluate", "--workdir", runs[0], "--csv", "--first", "50"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["test_accuracy"]) == figures["test_accuracy"]
    assert float(row["accuracy_interval95_low"]) == low and int(row["classes_3_images"]) > 0


def test_evaluate_says_more_if_asked(tiny_run, tmp_path, capsys):
    command = ["evaluate", "--workdir", str(tiny_run), "--views", "mirror", "--details"]
    assert main([*command, "--sheets", str(tmp_path / "sheets")]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 14: test loss [\d.]+, accuracy [\d.]+% \([\d.]+% with mirror views\) of 90 images",
        first,
    )
    assert any(line.startswith("with temperature") for line in rest)
    assert sum(bool(re.match(r"\d .*%", line)) for line in rest) == 10
    for name in ("mistakes", "doubtful_hits"):
        assert Image.open(tmp_path / "sheets" / f"{name}.png").width > 500


def test_other_splits_and_data_sets(tiny_run, tmp_path, capsys):
    with pytest.raises(UserError) as error:
        judge(tiny_run, split="validation")
    assert error.value.field == "--split"
    trained = judge(tiny_run, split="train")
    assert len(trained.images) == 224 and trained.scores.scaling is None
    assert "label_errors" not in chosen_images(trained, 5)
    digits = load_dataset("digits")
    order = [3, 1, 0, 2, 4, 5, 6, 7, 8, 9]  # the same classes in another order
    place = np.argsort(order)
    small = np.asarray(digits.test_images)[:40, ::2, ::2]  # of another size
    np.savez(
        tmp_path / "other.npz", x_train=small, y_train=digits.test_labels[:40],
        x_test=small, y_test=place[digits.test_labels[:40]],
        class_names=np.array([str(name) for name in order]),
    )  # fmt: skip
    other = judge(tiny_run, dataset=str(tmp_path / "other.npz"))
    np.testing.assert_array_equal(other.scores.labels, digits.test_labels[:40])
    assert other.images.shape == (40, 32, 32, 3)
    np.savez(
        tmp_path / "strange.npz", x_train=small, y_train=place[:1].repeat(40), x_test=small,
        y_test=np.zeros(40, int), class_names=np.array(["cat", "dog", "cow", "hen"]),
    )  # fmt: skip
    assert main(["evaluate", "--workdir", str(tiny_run), "--dataset",
                 str(tmp_path / "strange.npz")]) == 2  # fmt: skip
    assert "'cat'" in capsys.readouterr().err


def test_validation_images_fit_the_temperature(tiny_run, tmp_path):
    copy = tmp_path / "held"
    shutil.copytree(tiny_run, copy)
    config = json.loads((copy / "config.json").read_text()) | {"validation_split": 64}
    (copy / "config.json").write_text(json.dumps(config))
    judged = judge(copy)
    dataset, images, labels = load_dataset("digits").first(224, 90).split_validation(64, 0)
    assert judged.scores.held_out is not None
    np.testing.assert_array_equal(judged.scores.held_out[1], labels)
    assert judged.scores.scaling is not None and "validation" in judged.scores.scaling[2]
    np.testing.assert_array_equal(judge(copy, split="validation").images, images)
    assert len(judge(copy, split="train").images) == 160


def test_compare_tests_image_by_image(tiny_run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    assert main(["compare", "--workdir", str(tiny_run), str(copy), "--mcnemar"]) == 0
    out = capsys.readouterr().out
    assert "tiny, copy" in out and "p = 1 (McNemar's exact test)" in out
    assert main(["compare", "--workdir", str(tiny_run), str(copy), "--json"]) == 0
    (recipe,) = json.loads(capsys.readouterr().out)["recipes"]
    assert recipe["runs"] == ["tiny", "copy"] and recipe["test_accuracy"]["std"] == 0
    assert main(["compare", "--workdir", str(tiny_run), str(copy), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("seeds,epochs,seconds,runs,parameters,")
    assert main(["compare", "--workdir", str(tiny_run), str(copy), "--mcnemar", "--csv"]) == 0
    _, tests = capsys.readouterr().out.split("\n\n")
    assert tests == f"runs,only_first,only_second,p\n{tiny_run} {copy},0,0,1.0\n"


def test_sheets_of_runs_of_the_same_name_lie_apart(tiny_run, tmp_path):
    copy = tmp_path / tiny_run.name
    shutil.copytree(tiny_run, copy)
    command = ["evaluate", "--workdir", str(tiny_run), str(copy), "--first", "20"]
    assert main([*command, "--sheets", str(tmp_path / "sheets")]) == 0
    assert len(list((tmp_path / "sheets").rglob("mistakes.png"))) == 2


def test_bins_of_few_images_are_pale_in_a_reliability_diagram():
    figure = calibration_figure(Calibration((0, 3, 20), (0.0, 0.5, 0.9), (0.0, 1.0, 0.8)), "")
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [0, 100, 80]  # pyright: ignore
    assert [bar.get_alpha() for bar in bars] == [None, 0.3, None]
