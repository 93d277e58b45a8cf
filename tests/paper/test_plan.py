import pytest

from flax_resnet.paper import SECTION_NAMES
from flax_resnet.paper.plan import (
    OPTIMIZER_SETTINGS,
    PLAIN_AND_RESIDUAL,
    load_run_config,
    optimizer_run,
    planned_runs,
    rate_trials,
    seed_run,
)
from flax_resnet.process.errors import UserError


def names(sections: tuple[str, ...], seeds: int = 1) -> list[str]:
    return [run.name for run in planned_runs(sections, seeds)]


def test_sections_share_the_papers_own_run():
    own = ["revised_adam_seed0"]
    assert names(("figure5-6",)) == own
    assert names(("results",)) == own
    planned = names(("optimizers",))
    assert planned[:4] == [*own, "revised_sgd", "revised_momentum", "revised_nesterov"]
    assert planned[4:7] == [f"trial_sgd_rate{rate}" for rate in (0.03, 0.1, 0.3)]
    assert optimizer_run("adam") == seed_run(0)
    every = names(SECTION_NAMES, seeds=3)
    assert len(every) == len(set(every)) == 1 + 3 + 3 * 3 + 4 + 2


def test_tables_and_drawings_need_no_training():
    assert names(("figure3", "figure4", "design")) == []


def test_seeds_are_trained_for_the_results_alone():
    assert names(("results",), 3) == [f"revised_adam_seed{seed}" for seed in range(3)]
    assert names(("figure5-6",), 3) == ["revised_adam_seed0"]


def test_figure_1_has_hes_recipe():
    for run in planned_runs(("figure1",), 1):
        config = load_run_config(run)
        assert config.model in PLAIN_AND_RESIDUAL
        assert (config.optimizer, config.learning_rate, config.momentum) == ("momentum", 0.1, 0.9)
        assert (config.num_epochs, config.weight_decay) == (164, 1e-4)


def test_optimizers_have_one_effective_step_but_for_adam():
    for name in OPTIMIZER_SETTINGS:
        config = load_run_config(optimizer_run(name))
        assert (config.model, config.optimizer, config.num_epochs) == ("revised", name, 50)
        if name == "adam":
            assert config.learning_rate == 1e-3
        else:
            kept = config.momentum if name != "sgd" else 0.0
            assert config.learning_rate / (1 - kept) == pytest.approx(0.1)


def test_trials_hold_images_out_for_two_epochs():
    for rate, run in rate_trials("nesterov").items():
        config = load_run_config(run)
        assert (config.optimizer, config.learning_rate, run.epochs) == ("nesterov", rate, 2)
        assert (config.validation_split, config.momentum, config.num_epochs) == (5000, 0.9, 50)
    assert rate_trials("adam") == {}


def test_a_users_change_reaches_every_run():
    for run in planned_runs(SECTION_NAMES, 2):
        config = load_run_config(run, ["--config.batch_size=64"])
        assert config.batch_size == 64
        assert config.seed == (1 if run.name.endswith("seed1") else 0)


@pytest.mark.parametrize(
    "override", ["--config.seed=3", "--config.train_images=3", "--config.optimizer=adamw"]
)
def test_a_field_of_the_plan_cannot_be_changed(override: str):
    with pytest.raises(UserError) as caught:
        load_run_config(seed_run(0), [override])
    assert caught.value.code == "conflict"
    assert caught.value.field == override.removeprefix("--").partition("=")[0]
