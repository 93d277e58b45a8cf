"""python -m flax_resnet design, as typed."""

import pytest

from flax_resnet.__main__ import main
from flax_resnet.config.load import design_of, load_config
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.summary import count_parameters
from flax_resnet.search.space import PAPER_DESIGN
from tests.conftest import ROOT

RECIPE = ["--config", str(ROOT / "configs/revised.py")]
TINY = ["--layers", "2", "--blocks", "1", "--channels", "2,4", "--shortcut-kernels", "1"]


def table_rows(text: str) -> dict[int, str]:
    lines = [line for line in text.splitlines() if line.split() and line.split()[0].isdigit()]
    return {int(line.split()[0]): line for line in lines if line.split()[0].isdigit()}


def test_the_papers_design_has_a_row_below_the_first_ones(capsys):
    assert main(["design", *RECIPE, "--max-params", "5e6", "--rows", "3"]) == 0
    text = capsys.readouterr().out
    assert "5,760 designs, 1,496 of them within 5,000,000 parameters" in text
    rows = table_rows(text)
    assert list(rows)[:3] == [1, 2, 3] and len(rows) == 5
    efficient, paper = list(rows.values())[3:]
    assert "4,697,162" in efficient and "96.04% (with 580 parameters more)" in efficient
    assert paper.split()[1:4] == ["4", "1,1,1,1", "64,128,256,512"]
    assert "4,903,242" in paper and paper.endswith("the paper: 90.84%")
    assert "Coconut, 2025: 4.9M parameters, 95.49%" in text


def test_the_bound_is_the_last_number_that_fits(capsys):
    assert main(["design", *RECIPE, "--max-params", "4903242", "--rows", "0"]) == 0
    assert "4,903,242    " in capsys.readouterr().out
    assert main(["design", *RECIPE, "--max-params", "4903241", "--rows", "0"]) == 0
    assert "the paper" not in capsys.readouterr().out


def test_public_answers_beyond_the_bound_are_not_shown(capsys):
    assert main(["design", *RECIPE, "--max-params", "3e6", "--rows", "0"]) == 0
    text = capsys.readouterr().out
    assert "2,797,610" in text
    assert all(word not in text for word in ("the paper", "Wide-ResNet", "Coconut", "Efficient"))


def test_answers_for_other_images_are_not_shown(capsys):
    assert main(["design", *RECIPE, "--dataset", "cifar100", "--rows", "1"]) == 0
    text = capsys.readouterr().out
    assert "100 classes" in text and "the paper" not in text and "Coconut" not in text


def test_a_written_row_is_a_config_of_its_parameters(tmp_path, capsys):
    path = tmp_path / "mine.py"
    arguments = ["design", *RECIPE, "--rows", "2", "--write-config", "2", str(path)]
    assert main([*arguments, "--config.optimizer=nesterov"]) == 0
    text = capsys.readouterr().out
    assert f"python train.py --config {path}" in text
    config = load_config(path)
    params = count_parameters(ResNet(design_of(config), 10), (32, 32, 3))
    assert f"{params:,}" in table_rows(text)[2]
    assert config.optimizer == "nesterov" and config.num_epochs == 50
    assert main(arguments) == 2
    assert "it exists already" in capsys.readouterr().err


def test_the_papers_row_written_is_the_papers_design(tmp_path, capsys):
    assert main(["design", *RECIPE, "--rows", "0"]) == 0
    row = max(table_rows(capsys.readouterr().out))
    path = tmp_path / "paper.py"
    assert main(["design", *RECIPE, "--write-config", str(row), str(path)]) == 0
    assert design_of(load_config(path)) == PAPER_DESIGN


def test_a_picture_is_drawn(tmp_path, capsys):
    path = tmp_path / "designs.png"
    assert main(["design", *RECIPE, "--output", str(path)]) == 0
    assert str(path) in capsys.readouterr().out and path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-params", "few"], "--max-params is 'few'"),
        (["--kernels", "2"], "--kernels is '2'"),
        (["--layers", "0"], "--layers is '0'"),
        (["--rows", "-1"], "--rows is -1"),
        (["--race", "0"], "--race is 0"),
        (["--race-rows", "1,9999"], "row 9999 does not exist: 1,496 designs fit"),
        (["--write-config", "1", "x.txt"], "must end in .py"),
        (["--write-config", "2000", "x.py"], "row 2000 does not exist"),
        (["--race", "8", "--epochs", "2"], "--epochs is 2"),
        (["--dataset", "my/set"], "--classes is needed"),
        (["--block", "bottleneck", "--shortcut", "none"], "--shortcut is 'none'"),
        (["--config.batch_sze=2"], "did you mean config.batch_size?"),
        (["--output", "x.bmp"], "x.bmp"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert main(["design", *RECIPE, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_race_leaves_standings_and_the_winners_config(tmp_path, capsys):
    arguments = ["design", "--config", str(ROOT / "configs/quickstart.py"), *TINY]
    arguments += ["--race", "2", "--epochs", "1", "--train-images", "100", "--out", str(tmp_path)]
    arguments += ["--config.test_images=10", "--config.batch_size=32"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    standings = (tmp_path / "standings.txt").read_text()
    assert standings in text and "10 validation images" in standings
    winner = load_config(tmp_path / "winner.py")
    # The recipe in full: what was short for the race is not in it.
    assert (winner.num_epochs, winner.train_images, winner.validation_split) == (4, None, 0)
    best = standings.splitlines()[1]
    assert f"C {','.join(map(str, design_of(winner).stage_channels))};" in best
    # Every contender is an ordinary run.
    assert main(["evaluate", "--workdir", str(next(tmp_path.glob("b1-1_*")))]) == 0
