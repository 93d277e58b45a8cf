import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnet.config import load as configs
from flax_resnet.config.build import build_schedule
from flax_resnet.config.load import changed_field, design_of, from_json, load_config, to_json
from flax_resnet.models.designs import MODELS
from flax_resnet.process.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "base", "he")
)
REVISED = ROOT / "configs/revised.py"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_survives_json(path):
    config = load_config(path)
    assert config.model in (path.stem, "revised")
    assert changed_field(config, from_json(to_json(config))) is None


def test_every_model_has_a_config_of_its_name():
    assert {p.stem for p in CONFIGS} == set(MODELS) | {"quickstart"}


def test_every_field_has_a_rule_and_every_rule_a_field():
    base = load_config(ROOT / "configs/base.py")
    assert set(configs.flat_fields(base)) == set(configs.RULES)


def test_revised_is_the_paper():
    config = load_config(REVISED)
    paper = {
        "dataset": "cifar10",
        "batch_size": 128,
        "drop_last": False,
        "num_epochs": 50,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "weight_decay": 0.0,
        "epsilon": 1e-8,
        "crop_padding": 4,
        "flip": True,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
        "weight_init": "pytorch",
        "dtype": "float32",
    }
    assert {field: config[field] for field in paper} == paper


def test_overrides_are_typed_and_nested():
    config = load_config(
        REVISED,
        ["--config.batch_size=256", "--noconfig.flip", "--config.design.stage_sizes=(2,1,1,1)",
         "--config.design.pool_size=0", "--config.learning_rate=1"],
    )  # fmt: skip
    assert (config.batch_size, config.flip, config.learning_rate) == (256, False, 1.0)
    design = design_of(config)
    assert design.stage_sizes == (2, 1, 1, 1) and design.pool_size is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_sze=3", "config.batch_sze: no such field; did you mean config.batch_size?"),
        (
            "design.pool=3",
            "config.design.pool: no such field; did you mean config.design.pool_size?",
        ),
        ("batch_size=abc", "config.batch_size is 'abc': it must be a whole number"),
        ("batch_size=1.5", "config.batch_size is '1.5'"),
        ("batch_size=0", "config.batch_size is 0"),
        ("flip=maybe", "config.flip is 'maybe': it must be True or False"),
        ("mean=(1,2)", "config.mean is (1, 2): it must be three numbers"),
        ("optimizer=adm", "config.optimizer is 'adm': it must be one of adam, adamw"),
        ("learning_rate=nan", "config.learning_rate is nan"),
        ("model=resnet19", "config.model is 'resnet19': it must be one of revised"),
        ("design.stage_sizes=(2,2)", "config.design.stage_channels has 4 numbers"),
        ("design.kernel_sizes=(3,3,2,3)", "config.design.kernel_sizes"),
        ("weight_decay=0.1", "config.weight_decay is 0.1, and adam has none"),
        ("warmup_epochs=50", "config.warmup_epochs is 50.0"),
        ("step_boundaries=(1.5,)", "config.step_boundaries"),
        ("seed=-1", "config.seed is -1"),
    ],
)
def test_a_typo_or_bad_value_is_one_line_that_names_the_field(override, words):
    with pytest.raises(UserError) as error:
        load_config(REVISED, [f"--config.{override}"])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_broken_config_file_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean .*revised.py"):
        load_config(ROOT / "configs/revise.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(UserError, match="broken.py: ZeroDivisionError"):
        load_config(broken)
    broken.write_text("def get_config() return\n")
    with pytest.raises(UserError, match="broken.py: SyntaxError"):
        load_config(broken)


BAD_FILES = {
    "raise ValueError('x')": "ValueError",
    "raise TypeError": "TypeError",
    "import sys; sys.exit(0)": "SystemExit",
    "open('/no/such/file')": "/no/such/file",
    "return None": "must return a ConfigDict, not None",
    "return {'batch_size': 1}": "must return a ConfigDict",
    "return ConfigDict()": "config.model is missing",
    "config.batch_size = 'many'": "batch_size",
    "config.batch_sise = 1": "batch_sise",
    "config.batch_size = True": "config.batch_size is True",
    "config.unlock(); del config.seed": "config.seed is missing",
    "config.unlock(); del config.design": "config.design.stage_sizes is missing",
    "config.unlock(); config.extra = 1": "config.extra: no such field",
    "config.unlock(); config.design.extra = 1": "config.design.extra: no such field",
    "config.unlock(); del config.design; config.design = 3": "config.design is 3",
    "config.unlock(); del config.seed; config.seed = required_placeholder(int)": "RequiredValue",
    "config.unlock(); del config.seed; config.seed = 10 ** 5000": "config.seed is a value of",
    "config.unlock(); del config.seed; config.seed = print": "config.seed is <built-in",
    "return return": "SyntaxError",
    "while False\n": "SyntaxError",
    "return get_config()": "RecursionError",
    "\0": "null bytes",
    "import no_such_module": "no_such_module",
}


@pytest.mark.parametrize("body", BAD_FILES)
def test_a_config_file_that_does_anything_wrong_is_one_line(tmp_path, body):
    path = tmp_path / "bad.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from ml_collections.config_dict import required_placeholder\n"
        "from configs import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        f"    {body}\n"
        "    return config\n"
    )
    with pytest.raises(UserError) as error:
        load_config(path)
    assert BAD_FILES[body] in str(error.value) and len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_a_config_path_that_is_no_file_is_named(tmp_path):
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "binary.py", "a" * 5000, "a" * 300, "", "\0"):
        with pytest.raises(UserError, match="config file") as error:
            load_config(path)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("[1]", "not a config but [1]"),
        ("null", "not a config but None"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ('{"get": 1}', "config.get: no such field"),
        ('{"design": 3}', "config.design is 3"),
        ('{"": 1}', "config.: no such field"),
    ],
)
def test_a_config_json_that_is_no_config_is_one_line(values, words):
    with pytest.raises(UserError) as error:
        from_json(values)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("design.stage_channels=(0,64,128,256)", "config.design.stage_channels is (0, 64"),
        ("design.kernel_sizes=(3,3,3,65)", "an odd whole number, at most 63"),
        ("design.stage_sizes=(1000000000,1,1,1)", "config.design.stage_sizes"),
        ("design.stage_sizes=(600,600,1,1)", "1,202 blocks in all"),
        ("learning_rate=1e300", "config.learning_rate is 1e+300"),
        ("learning_rate=1e-300", "config.learning_rate is 1e-300"),
        ("std=(1e-300,1,1)", "config.std"),
        ("beta2=0.999999999", "config.beta2"),
        ("num_epochs=1000000000000", "config.num_epochs is 1000000000000"),
        ("image_size=1000000000", "config.image_size"),
        ("step_boundaries=(0.75,0.5)", "config.step_boundaries is (0.75, 0.5): each must be above"),
        ("step_boundaries=(0.5,0.5)", "config.step_boundaries is (0.5, 0.5): each must be above"),
        ("dataset=a\0b", "config.dataset"),
        ("dataset=a\nb", "config.dataset"),
        ("batch_size=" + "9" * 5000, "config.batch_size"),
        ("no" * 500 + "=1", "no such field"),
    ],
)
def test_a_value_beyond_reason_is_one_short_line(override, words):
    with pytest.raises(UserError) as error:
        load_config(REVISED, [f"--config.{override}"])
    assert words in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_flag_that_there_is_none_of_is_named():
    with pytest.raises(UserError, match="--conf.batch_size: no such flag"):
        load_config(REVISED, ["--conf.batch_size=1"])
    with pytest.raises(UserError, match="batch_size"):
        load_config(REVISED, ["--config.batch_size"])
    with pytest.raises(UserError, match="unexpected argument 'more'"):
        load_config(REVISED, ["more"])


def test_images_too_small_for_the_halvings_or_the_crop_are_refused():
    whole_map = ["--config.design.pool_size=0", "--config.crop_padding=0"]
    config = load_config(REVISED, whole_map)
    configs.check_image_size(config, (5, 5, 3))  # 5, 3, 2, 1
    with pytest.raises(UserError, match="config.design.stage_sizes has 4 layers"):
        configs.check_image_size(config, (32, 4, 3))  # 4, 2, 1, and once more
    config = load_config(REVISED, ["--config.crop_padding=32"])
    with pytest.raises(UserError, match="config.crop_padding is 32.*must be below 32"):
        configs.check_image_size(config, (32, 32, 3))


def test_a_run_of_more_steps_than_can_be_counted_is_refused():
    config = load_config(REVISED, ["--config.num_epochs=1000000"])
    build_schedule(config, 2147)
    with pytest.raises(UserError, match="config.num_epochs is 1,000,000.* 999,759 at most"):
        build_schedule(config, 2148)


def test_images_too_small_for_the_pool_are_refused():
    config = load_config(REVISED)
    configs.check_image_size(config, (32, 32, 3))
    configs.check_image_size(config, (28, 28, 3))  # 28, 14, 7, 4
    with pytest.raises(UserError, match="config.design.pool_size is 4, but images of 16 x 16"):
        configs.check_image_size(config, (16, 16, 3))


def test_fields_that_change_no_number_may_differ():
    old = load_config(REVISED)
    for override in ("data_dir=/elsewhere", "checkpoint_every_minutes=1", "eval_batch_size=10"):
        assert changed_field(old, load_config(REVISED, [f"--config.{override}"])) is None
    new = load_config(REVISED, ["--config.batch_size=64"])
    assert changed_field(old, new) == ("batch_size", 128, 64)
    new = load_config(REVISED, ["--config.design.stage_sizes=(2,1,1,1)"])
    assert changed_field(old, new) == ("design.stage_sizes", None, (2, 1, 1, 1))


def test_num_epochs_may_grow_where_the_schedule_is_constant():
    def config(*overrides: str):
        return load_config(REVISED, [f"--config.{o}" for o in overrides])

    assert changed_field(config(), config("num_epochs=60")) is None
    assert changed_field(config(), config("num_epochs=40")) == ("num_epochs", 50, 40)
    cosine = "schedule=cosine"
    assert changed_field(config(cosine), config(cosine, "num_epochs=60")) == ("num_epochs", 50, 60)


def test_train_py_exits_with_2_and_one_line():
    result = subprocess.run(
        [sys.executable, "train.py", "--config", "configs/revised.py", "--config.batch_sze=3"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: config.batch_sze: no such field; did you mean config.batch_size?"
    ]
