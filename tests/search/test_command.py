"""python -m flax_resnet design, as typed."""

import pytest

from flax_resnet.__main__ import main
from flax_resnet.commands import design as command
from flax_resnet.config.load import design_of, load_config
from flax_resnet.models.resnet import ResNet
from flax_resnet.models.summary import count_parameters
from flax_resnet.process.errors import UserError
from flax_resnet.search.space import PAPER_DESIGN
from tests.conftest import ROOT

PAPER_ONLY = ["--stages", "4", "--blocks", "1", "--channels", "64", "--shortcut-kernels", "1"]


def table_rows(text: str) -> dict[int, str]:
    """Row number -> line."""
    lines = [line for line in text.splitlines() if line.split() and line.split()[0].isdigit()]
    return {int(line.split()[0]): line for line in lines}


def test_the_papers_design_has_a_row_below_the_first_ones(capsys):
    assert main(["design", "list", "--max-params", "5e6", "--rows", "1-3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("5,760 designs, 1,496 of them within 5,000,000 parameters")
    rows = table_rows(text.partition("\n")[2])
    assert list(rows)[:3] == [1, 2, 3] and len(rows) == 5
    efficient, paper = list(rows.values())[3:]
    assert "4,697,162" in efficient and "96.04%" in efficient and "580" in efficient
    assert paper.split()[1:4] == ["4", "1,1,1,1", "64,128,256,512"]
    assert "4,903,242" in paper and "90.84%" in paper


@pytest.mark.parametrize(("budget", "fits"), [("4903242", True), ("4903241", False)])
def test_the_budget_is_the_last_number_that_fits(budget, fits, capsys):
    assert main(["design", "list", *PAPER_ONLY, "--max-params", budget]) == 0
    assert ("90.84%" in capsys.readouterr().out) == fits


def test_results_for_other_images_are_not_shown(capsys):
    assert main(["design", "list", *PAPER_ONLY, "--config.dataset=cifar100"]) == 0
    text = capsys.readouterr().out
    assert "100 classes" in text and "90.84%" not in text


def test_a_written_row_is_a_config_of_its_parameters(tmp_path, capsys):
    path = tmp_path / "mine.py"
    write = ["design", "write", "2", str(path)]
    assert main([*write, "--config.optimizer=nesterov"]) == 0
    assert f"python train.py --config {path}" in capsys.readouterr().out
    config = load_config(path)
    assert (config.optimizer, config.num_epochs, config.reference_log) == ("nesterov", 50, None)
    assert main(["design", "list"]) == 0
    params = count_parameters(ResNet(design_of(config), 10), (32, 32, 3))
    assert f"{params:,}" in table_rows(capsys.readouterr().out)[2]
    assert main(write) == 2  # the file exists


def test_the_papers_row_written_is_the_papers_design(tmp_path):
    path = tmp_path / "paper.py"
    assert main(["design", "write", *PAPER_ONLY, "1", str(path)]) == 0
    assert design_of(load_config(path)) == PAPER_DESIGN


def test_a_figure_is_drawn(tmp_path, capsys):
    path = tmp_path / "designs.png"
    assert main(["design", "plot", *PAPER_ONLY, str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n" and path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        (["race", "--rows", "1,2"], "unknown", None),
        (["write", "2", "x.py"], "unknown", None),
        (["write", "1", "x.txt"], "invalid", "x.txt"),
        (["plot", "x.bmp"], "invalid", "x.bmp"),
        (["race", "--rows", "1", "--config.design.stem=imagenet"], "conflict", "design.stem"),
        (["write", "1", "x.py", "--config.model=resnet20"], "conflict", "model"),
        (["list", "--config.dataset=my/set"], "missing", "--classes"),
        (["list", "--block", "bottleneck", "--shortcut", "none"], "conflict", "--shortcut"),
    ],
)
def test_bad_input_is_refused(arguments, code, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raised = []

    def run(args):
        with pytest.raises(UserError) as caught:
            command_run(args)
        raised.append(caught.value)
        return 2

    command_run = command.run
    monkeypatch.setattr(command, "run", run)
    verb, *rest = arguments
    assert main(["design", verb, *PAPER_ONLY, *rest]) == 2
    assert raised[0].code == code
    assert raised[0].field in (field, f"config.{field}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "flag", "value"),
    [
        ("list", "--max-params", "few"),
        ("list", "--kernels", "2"),
        ("list", "--stages", "0"),
        ("list", "--rows", "-1"),
        ("race", "--epochs", "0"),
        ("race", "--rows", "0"),
    ],
)
def test_a_bad_value_is_named_with_its_flag(verb, flag, value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["design", verb, f"{flag}={value}"])
    assert ended.value.code == 2
    assert f"argument {flag}: '{value}'" in capsys.readouterr().err


def test_a_race_leaves_standings_and_the_winners_config(tmp_path, capsys):
    arguments = ["design", "race", "--config", str(ROOT / "configs/quickstart.py")]
    arguments += ["--stages", "2", "--blocks", "1", "--channels", "2,4", "--shortcut-kernels", "1"]
    arguments += ["--rows", "1-2", "--epochs", "1", "--train-images", "100", "--out", str(tmp_path)]
    arguments += ["--config.test_images=10", "--config.batch_size=32", "--config.conv=native"]
    assert main(arguments) == 0
    standings = (tmp_path / "standings.txt").read_text()
    assert standings in capsys.readouterr().out
    winner = load_config(tmp_path / "winner.py")
    # The full recipe: nothing that was reduced for the race.
    assert (winner.num_epochs, winner.train_images, winner.validation_split) == (4, None, 0)
    best = standings.splitlines()[1]
    assert f"C {','.join(map(str, design_of(winner).stage_channels))};" in best
    # Each contender is an ordinary run.
    assert main(["evaluate", "--workdir", str(next(tmp_path.glob("b1-1_*")))]) == 0
