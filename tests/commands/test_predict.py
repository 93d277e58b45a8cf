"""Predicting in bulk: where images come from, and how answers are written."""

import csv
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnet.__main__ import main
from flax_resnet.inference.model import Model, load


@pytest.fixture(scope="module")
def model(tiny_run) -> Model:
    return load(tiny_run)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory) -> Path:
    """The first six images in a folder of folders, with what is no image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "b").mkdir()
    for i in range(6):
        Image.fromarray(images[i]).save(folder / ("b" if i > 3 else "") / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def answers(tiny_run: Path, capsys, *arguments: str) -> list[dict]:
    assert main(["predict", "--workdir", str(tiny_run), "--json", "--top", "1", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def classes(found: list[dict]) -> list[str]:
    return [answer["predictions"][0]["class"] for answer in found]


def expected(model: Model, images: np.ndarray) -> list[str]:
    return [model.class_names[i] for i in model.predict(images)]


def test_folders_patterns_and_lists(tiny_run, model, folder, images, capsys, monkeypatch):
    found = answers(tiny_run, capsys, str(folder))
    names = [f"{i}.png" for i in range(4)] + ["b/4.png", "b/5.png"]
    assert [a["file"] for a in found] == [str(folder / name) for name in names]
    assert classes(found) == expected(model, images[:6])
    found = answers(tiny_run, capsys, str(folder / "[13].png"))
    assert [Path(a["file"]).name for a in found] == ["1.png", "3.png"]
    assert len(answers(tiny_run, capsys, str(folder / "**" / "*.png"))) == 6
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder / '2.png'}\n\n{folder / 'b'}\n"))
    found = answers(tiny_run, capsys, "-", str(folder / "0.png"))
    assert [Path(a["file"]).name for a in found] == ["2.png", "4.png", "5.png", "0.png"]


def test_arrays_of_images(tiny_run, model, images, tmp_path, capsys):
    for fields in ({"images": images}, {"x_test": images, "y_test": [0]}, {"anything": images}):
        np.savez(tmp_path / "a.npz", **fields)
        found = answers(tiny_run, capsys, str(tmp_path / "a.npz"))
        assert classes(found) == expected(model, images)
        assert found[7]["file"] == f"{tmp_path / 'a.npz'}[7]"
    np.savez(tmp_path / "large.npz", np.repeat(np.repeat(images, 2, 1), 2, 2))
    found = answers(tiny_run, capsys, str(tmp_path / "large.npz"))
    assert len(found) == 50  # resized


@pytest.mark.parametrize("fields", [{"a": [1], "b": [2]}, {"images": np.zeros((2, 3))},
                                    {"images": np.array([{}])}])  # fmt: skip
def test_arrays_of_something_else_are_refused(fields, tiny_run, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **fields)
    assert main(["predict", "--workdir", str(tiny_run), str(tmp_path / "a.npz")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "a.npz") in error and error.count("\n") == 1


def test_csv(tiny_run, model, folder, images, tmp_path, capsys):
    output = tmp_path / "a.csv"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    command = ["predict", "--workdir", str(tiny_run), "--format", "csv", "--top", "2"]
    assert main([*command, str(folder), str(bad), "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and str(bad) in captured.err
    rows = list(csv.reader(output.read_text().splitlines()))
    assert rows[0] == ["file", "class1", "probability1", "class2", "probability2"]
    assert [row[1] for row in rows[1:]] == expected(model, images[:6])
    scores = np.sort(model.probabilities(images[:6]))[:, ::-1]
    found = np.array([[float(row[2]), float(row[4])] for row in rows[1:]])
    np.testing.assert_allclose(found, scores[:, :2], atol=1e-5)


def test_a_submission_has_the_ids_of_the_pickle(tiny_run, model, images, tmp_path, capsys):
    ids = np.random.default_rng(1).permutation(50)
    path, output = tmp_path / "cifar_test_nolabel.pkl", tmp_path / "submission.csv"
    path.write_bytes(pickle.dumps({b"data": images, b"ids": ids}))
    command = ["predict", "--workdir", str(tiny_run), "--format", "kaggle"]
    assert main([*command, str(path)]) == 2
    assert "--output" in capsys.readouterr().err
    assert main([*command, str(path), "--output", str(output)]) == 0
    lines = output.read_text().splitlines()
    assert lines[0] == "ID,Labels"
    assert lines[1:] == [f"{i},{k}" for i, k in zip(ids, model.predict(images), strict=True)]
    output.unlink()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    assert main([*command, str(path), str(bad), "--output", str(output)]) == 2
    assert not output.exists()  # a submission without all of its rows


def test_nothing_found_is_one_line(tiny_run, tmp_path, capsys):
    for name in (tmp_path, tmp_path / "*.png"):
        assert main(["predict", "--workdir", str(tiny_run), str(name)]) == 2
        error = capsys.readouterr().err
        assert str(name) in error and error.count("\n") == 1
