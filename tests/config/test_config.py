import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnet.config import load as configs
from flax_resnet.config.build import build_schedule
from flax_resnet.config.compat import changed_field, check_may_resume
from flax_resnet.config.fields import FIELDS, FORMAT, Field, describe_fields, integer
from flax_resnet.config.load import (
    default_config,
    design_of,
    find_config,
    flat_fields,
    from_json,
    load_config,
    to_json,
)
from flax_resnet.models.designs import MODELS
from flax_resnet.process.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "base"))
REVISED = ROOT / "configs/revised.py"


def refused(make) -> UserError:
    """The refusal, which is one short line."""
    with pytest.raises(UserError) as error:
        make()
    message = str(error.value)
    assert len(message.splitlines()) == 1 and len(message) < 500, message
    return error.value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_trains_the_model_of_its_name(path):
    config = load_config(path)
    if path.stem in MODELS:
        assert config.model == path.stem
    assert flat_fields(from_json(to_json(config))) == flat_fields(config)


def test_every_model_has_a_config_of_its_name():
    assert {p.stem for p in CONFIGS} >= set(MODELS) | {"quickstart"}  # and a user's own


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_a_field_has_a_default_that_its_rule_accepts_and_a_description(field):
    assert field.rule(field.default) and field.rule(field.absent)
    assert field.default is None or isinstance(field.default, field.rule.type)
    assert field.help and field.section and 1 <= field.since <= FORMAT
    assert not configs._UNSUPPORTED.search(field.name)
    assert f"  {field.name} = {field.default!r}\n" in describe_fields()


def test_base_is_the_default_config_locked_with_every_field():
    config = load_config(ROOT / "configs/base.py")
    assert flat_fields(config) == {name: field.default for name, field in FIELDS.items()}
    assert config.is_locked and flat_fields(default_config()) == flat_fields(config)


def test_a_config_is_found_by_path_or_name(tmp_path, monkeypatch):
    assert find_config("revised") == REVISED == find_config(REVISED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").write_text((ROOT / "configs/revised.py").read_text())
    assert load_config("resnet20").model == "revised"  # a path comes first
    assert load_config("resnet32").model == "resnet32"
    error = refused(lambda: find_config("resnet33"))
    assert (error.code, error.field) == ("missing", "resnet33") and "resnet32" in str(error)
    assert "quickstart" in str(refused(lambda: find_config("nothing")))


def test_an_edited_config_file_is_read_anew(tmp_path):
    path = tmp_path / "mine.py"
    for seed in (1, 2):  # of one size, within one second
        path.write_text(
            "from configs import base\n"
            "def get_config():\n"
            "    config = base.get_config()\n"
            f"    config.seed = {seed}\n"
            "    return config\n"
        )
        assert load_config(path).seed == seed
    assert not (tmp_path / "__pycache__").exists()


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
    ("arguments", "field", "value"),
    [
        (["--config.seed", "5"], "seed", 5),
        (["--config.seed=5", "--config.seed=6"], "seed", 6),
        (["-config.seed=5"], "seed", 5),
        (["--config.drop_last"], "drop_last", True),
        (["--config.flip=False"], "flip", False),
        (["--config.flip=0"], "flip", False),
        (["--config.mean=1,2,3"], "mean", (1, 2, 3)),
        (["--config.mean=[1, 2, 3]"], "mean", (1, 2, 3)),
        (["--config.step_boundaries=0.5"], "step_boundaries", (0.5,)),
        (["--config.dataset=a=b"], "dataset", "a=b"),
        (["--config.dataset=None"], "dataset", "None"),
        (["--config.data_dir=1e3"], "data_dir", "1e3"),
        (["--config.reference_log=None"], "reference_log", None),
        (["--config.image_size=None"], "image_size", None),
        (["--config.design.kernel_sizes=None"], "design.kernel_sizes", None),
        (["--config.weight_decay=0"], "weight_decay", 0.0),
    ],
)
def test_an_override_becomes_a_value_of_the_fields_type(arguments, field, value):
    found = flat_fields(load_config(REVISED, arguments))[field]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "code", "field", "fact"),
    [
        (["--conf.batch_size=1"], "unknown", "--conf.batch_size", ""),
        (["--config=x.py"], "unknown", "--config", ""),
        (["more"], "unknown", "more", ""),
        (["--config.flip", "False"], "unknown", "False", ""),
        (["--config.batch_size"], "missing", "config.batch_size", ""),
        (["--config.batch_size", "--config.flip"], "missing", "config.batch_size", ""),
        (["--noconfig.batch_size"], "invalid", "config.batch_size", ""),
        (["--noconfig.flip=1"], "invalid", "config.flip", ""),
        (["--noconfig.flipp"], "unknown", "config.flipp", "config.flip?"),
    ],
)
def test_an_argument_that_is_no_override_is_refused(arguments, code, field, fact):
    error = refused(lambda: load_config(REVISED, arguments))
    assert (error.code, error.field) == (code, field) and fact in str(error)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batch_sze", "did you mean config.batch_size?"),
        ("design.pool", "did you mean config.design.pool_size?"),
        ("epochs", "did you mean config.num_epochs?"),
        ("stage_sizes", "did you mean config.design.stage_sizes?"),
        ("dropout", "not supported"),
        ("smoothing", "did you mean config.label_smoothing?"),
        ("mixup_alpha", "did you mean config.mixup?"),
        ("grad_clip", "did you mean config.clip_norm?"),
        ("gradient_accumulation_steps", "did you mean config.micro_batches?"),
        ("design.drop_path", "did you mean config.design.stochastic_depth?"),
        ("squeeze_excite", "did you mean config.design.squeeze_excitation?"),
        ("jitter", "did you mean config.color_jitter?"),
        ("weight_ema", "did you mean config.ema_decay?"),  # nearer to weight_decay
        ("get", ""),
        ("augmentation", ""),
        ("no" * 500, ""),
    ],
)
def test_an_unknown_field_gets_a_near_name_only_if_it_is_near(name, hint):
    error = refused(lambda: load_config(REVISED, [f"--config.{name}=1"]))
    assert error.code == "unknown" and str(error.field).startswith(f"config.{name[:90]}")
    assert hint in str(error) and ("did you mean" in str(error)) == ("did you mean" in hint)


@pytest.mark.parametrize(
    ("override", "fact"),
    [
        ("batch_size=abc", "'abc'"),
        ("batch_size=1.5", "'1.5'"),
        ("batch_size=None", "'None'"),
        ("batch_size=0", "0"),
        ("flip=maybe", "True or False"),
        ("mean=(1,2)", "(1, 2)"),
        ("mean=(1,", "'(1,'"),
        ("optimizer=adm", "adamw"),
        ("learning_rate=nan", "nan"),
        ("model=resnet19", "revised"),
        ("design.kernel_sizes=(3,3,2,3)", "odd"),
        ("design.kernel_sizes=(3,3,3,65)", "63"),
        ("design.stage_channels=(0,64,128,256)", "(0, 64"),
        ("design.stage_sizes=(1000000000,1,1,1)", "1,000"),
        ("design.stage_sizes=(600,600,1,1)", "1,202"),
        ("step_boundaries=(1.5,)", "between 0 and 1"),
        ("step_boundaries=(0.75,0.5)", "increasing"),
        ("step_boundaries=(0.5,0.5)", "increasing"),
        ("seed=-1", "-1"),
        ("learning_rate=1e300", "1e+300"),
        ("learning_rate=1e-300", "1e-300"),
        ("std=(1e-300,1,1)", "1e-300"),
        ("beta2=0.999999999", "0.999999"),
        ("num_epochs=1000000000000", "1,000,000"),
        ("image_size=1000000000", "8,192"),
        ("dataset=a\0b", "control"),
        ("dataset=a\nb", "control"),
        ("dataset=", "''"),
        ("batch_size=" + "9" * 5000, "1,000,000"),
        ("step_boundaries=" + "(" * 10_000, "fractions"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_line_that_names_the_field(override, fact):
    error = refused(lambda: load_config(REVISED, [f"--config.{override}"]))
    assert (error.code, error.field) == ("invalid", f"config.{override.partition('=')[0]}")
    assert f"{error.field} is" in str(error) and fact in str(error)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("design.stage_sizes=(2,2)", "design.stage_channels"),
        ("weight_decay=0.1", "weight_decay"),
        ("warmup_epochs=50", "warmup_epochs"),
        ("design.stage_channels=(64,32,16,8)", "design.shortcut"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(override, field):
    overrides = [f"--config.{override}", "--config.design.shortcut=pad"]
    error = refused(lambda: load_config(REVISED, overrides))
    assert (error.code, error.field) == ("conflict", f"config.{field}")


def test_a_stem_wider_than_the_first_stage_needs_a_projection():
    narrow = refused(
        lambda: load_config(ROOT / "configs/resnet20.py", ["--config.design.stem=whiten"])
    )
    assert (narrow.code, narrow.field) == ("conflict", "config.design.shortcut")
    load_config(
        ROOT / "configs/resnet20.py",
        ["--config.design.stem=whiten", "--config.design.shortcut=projection"],
    )


def test_a_missing_or_broken_config_file_is_named(tmp_path):
    missing = refused(lambda: load_config(ROOT / "configs/revise.py"))
    assert missing.code == "missing" and "configs/revised.py" in str(missing)
    broken = tmp_path / "broken.py"
    for text, kind in (
        ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def get_config() return\n", "SyntaxError"),
        ("", "AttributeError"),
    ):
        broken.write_text(text)
        error = refused(lambda: load_config(broken))
        assert (error.code, error.field) == ("unreadable", str(broken)) and kind in str(error)


BAD_FILES = {
    "raise ValueError('x')": (None, "ValueError"),
    "raise TypeError": (None, "TypeError"),
    "import sys; sys.exit(0)": (None, "SystemExit"),
    "open('/no/such/file')": (None, "/no/such/file"),
    "return None": (None, "None"),
    "return {'batch_size': 1}": (None, "ConfigDict"),
    "return return": (None, "SyntaxError"),
    "while False\n": (None, "SyntaxError"),
    "return get_config()": (None, "RecursionError"),
    "\0": (None, "null bytes"),
    "import no_such_module": (None, "no_such_module"),
    "config.batch_size = 'many'": (None, "batch_size"),
    "config.batch_sise = 1": (None, "batch_sise"),
    "return ConfigDict()": ("config.model", "missing"),
    "config.batch_size = True": ("config.batch_size", "True"),
    "config.unlock(); del config.crop_padding": ("config.crop_padding", "missing"),
    "config.unlock(); del config.design": ("config.design.stage_sizes", "missing"),
    "config.unlock(); config.extra = 1": ("config.extra", "not a field"),
    "config.unlock(); config.design.extra = 1": ("config.design.extra", "not a field"),
    "config.unlock(); del config.design; config.design = 3": ("config.design", "3"),
    "config.unlock(); del config.flip; config.flip = required_placeholder(bool)": (
        "config.flip", "required",
    ),
    "config.unlock(); del config.flip; ref = config.get_ref; config.flip = 1 / (ref('seed') - 1)": (
        "config.flip", "division by zero",  # the test sets seed to 1
    ),
    "config.unlock(); del config.num_epochs; config.num_epochs = 10 ** 5000": (
        "config.num_epochs", "of type int",
    ),
    "config.unlock(); del config.flip; config.flip = print": ("config.flip", "<built-in"),
}  # fmt: skip


def write_config(path: Path, body: str) -> Path:
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from ml_collections.config_dict import required_placeholder\n"
        "from configs import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        f"    {body}\n"
        "    return config\n"
    )
    return path


@pytest.mark.parametrize("body", BAD_FILES)
def test_a_config_file_that_does_anything_wrong_is_one_line(tmp_path, body):
    path = write_config(tmp_path / "bad.py", body)
    error = refused(lambda: load_config(path, ["--config.seed=1"]))
    field, fact = BAD_FILES[body]
    assert error.field == (field or str(path)) and fact in str(error)
    assert field or error.code == "unreadable"


def test_references_in_a_config_file_are_resolved(tmp_path):
    path = write_config(tmp_path / "a.py", "config.eval_batch_size = config.get_ref('batch_size')")
    config = load_config(path, ["--config.batch_size=64"])
    assert from_json(to_json(config)).eval_batch_size == 64
    body = "config.unlock(); del config.seed; config.seed = required_placeholder(int)"
    path = write_config(tmp_path / "b.py", body)
    assert load_config(path, ["--config.seed=3"]).seed == 3
    assert refused(lambda: load_config(path)).field == "config.seed"


def test_a_config_path_that_is_no_file_is_named(tmp_path):
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    for path, code in (
        (tmp_path, "missing"), (tmp_path / "binary.py", "unreadable"), ("a" * 5000, "unreadable"),
        ("a" * 300, "unreadable"), ("", "missing"), ("\0", "missing"),
    ):  # fmt: skip
        error = refused(lambda path=path: load_config(path))
        assert (error.code, error.field) == (code, str(path))


@pytest.mark.parametrize(
    ("text", "code", "field", "fact"),
    [
        ("[1]", "unreadable", None, "[1]"),
        ("null", "unreadable", None, "None"),
        ("[" * 100_000, "unreadable", None, "JSON"),
        ("1" * 5000, "unreadable", None, "JSON"),
        ('{"get": 1}', "unknown", "config.get", ""),
        ('{"": 1}', "unknown", "config.", ""),
        ('{"design": 3}', "invalid", "config.design", "3"),
        ('{"seed": {"a": 1}}', "invalid", "config.seed", "{'a': 1}"),
        ('{"design": {"stem": {}}}', "invalid", "config.design.stem", "{}"),
        ('{"format": "2"}', "invalid", "format", "'2'"),
        ('{"format": true}', "invalid", "format", "True"),
        ('{"format": 0}', "invalid", "format", "0"),
        ('{"format": 2}', "missing", "config.model", ""),
        ('{"format": 2, "extra": 1}', "unknown", "config.extra", "not a field"),
        ('{"format": 987, "a": {"b": 1}}', "unknown", "config.a", f"987, this {FORMAT}"),
        ('{"format": 987, "design": {"b": 1}}', "unknown", "config.design.b", "987"),
    ],
)
def test_a_config_json_that_is_no_config_is_one_line(text, code, field, fact):
    error = refused(lambda: from_json(text))
    assert (error.code, error.field) == (code, field) and fact in str(error)


def as_dict(config=None) -> dict:
    return json.loads(to_json(config or default_config()))


def test_json_begins_with_its_format():
    values = as_dict()
    assert next(iter(values)) == "format" and values["format"] == FORMAT
    values["format"] = FORMAT + 1  # newer, but every field is known
    assert flat_fields(from_json(json.dumps(values))) == flat_fields(default_config())


def test_a_run_without_a_format_opens_and_an_absent_field_is_as_before_it_existed(monkeypatch):
    values = as_dict(load_config("resnet20"))
    del values["format"], values["on_nan"], values["design"]["stem"]
    config = from_json(json.dumps(values))
    assert config.model == "resnet20" and config.on_nan == "stop" and config.design.stem is None

    new = Field("seed", 7, integer(0, 9), "", since=FORMAT, absent=5)
    monkeypatch.setitem(FIELDS, "seed", new)
    del values["seed"]
    assert from_json(json.dumps(values)).seed == 5
    values = as_dict()
    del values["seed"]  # a file of today's format would have it
    assert refused(lambda: from_json(json.dumps(values))).code == "missing"
    monkeypatch.setitem(FIELDS, "seed", dataclasses.replace(new, since=FORMAT + 1))
    assert from_json(json.dumps(values)).seed == 5


def test_images_too_small_for_the_config_are_refused():
    config = load_config(REVISED)
    configs.check_image_size(config, (28, 28, 3))  # 28, 14, 7, 4
    error = refused(lambda: configs.check_image_size(config, (16, 16, 3)))
    assert (error.code, error.field) == ("conflict", "config.design.pool_size")
    assert "16 x 16" in str(error)
    config = load_config(REVISED, ["--config.design.pool_size=0", "--config.crop_padding=0"])
    configs.check_image_size(config, (5, 5, 3))  # 5, 3, 2, 1
    error = refused(lambda: configs.check_image_size(config, (32, 4, 3)))  # 4, 2, 1, once more
    assert error.field == "config.design.stage_sizes" and "3 times" in str(error)
    config = load_config(REVISED, ["--config.crop_padding=32"])
    error = refused(lambda: configs.check_image_size(config, (32, 32, 3)))
    assert error.field == "config.crop_padding" and "below 32" in str(error)


def test_a_run_of_more_steps_than_can_be_counted_is_refused():
    config = load_config(REVISED, ["--config.num_epochs=1000000"])
    build_schedule(config, 2147)
    assert "999,759" in str(refused(lambda: build_schedule(config, 2148)))


@pytest.mark.parametrize("field", [field.name for field in FIELDS.values() if field.free])
def test_free_fields_may_differ(field):
    new = default_config()
    new[field] = {str: "skip", int: 7, float: 0.5}[FIELDS[field].rule.type]
    assert changed_field(default_config(), new) is None


def test_fields_that_change_the_run_may_not_differ():
    old = load_config(REVISED)
    new = load_config(REVISED, ["--config.batch_size=64"])
    assert changed_field(old, new) == ("batch_size", 128, 64)
    new = load_config(REVISED, ["--config.design.stage_sizes=(2,1,1,1)"])
    assert changed_field(old, new) == ("design.stage_sizes", None, (2, 1, 1, 1))
    error = refused(lambda: check_may_resume("runs/a", old, new, "--workdir"))
    assert (error.code, error.field) == ("conflict", "config.design.stage_sizes")
    assert all(fact in str(error) for fact in ("runs/a", "(2, 1, 1, 1)", "--workdir"))


def test_num_epochs_may_grow_where_the_schedule_is_constant():
    def change(schedule: str, epochs: int) -> None:
        old, new = (
            load_config(REVISED, [f"--config.schedule={schedule}", f"--config.num_epochs={n}"])
            for n in (50, epochs)
        )
        check_may_resume("runs/a", old, new, "--workdir")

    change("constant", 60)
    old, new = (
        load_config(
            REVISED,
            [
                "--config.schedule=constant",
                "--config.lookahead_steps=5",
                "--config.lookahead_power=3",
                f"--config.num_epochs={n}",
            ],
        )
        for n in (50, 60)
    )
    assert "Lookahead" in str(refused(lambda: check_may_resume("runs/a", old, new, "--workdir")))
    for schedule, epochs, why in (("constant", 40, "only grow"), ("cosine", 60, "cosine schedule")):
        error = refused(lambda s=schedule, n=epochs: change(s, n))
        assert error.field == "config.num_epochs" and why in str(error)


def test_train_py_exits_with_2_and_one_line():
    result = subprocess.run(
        [sys.executable, "train.py", "--config", "configs/revised.py", "--config.batch_sze=3"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: config.batch_sze") and "config.batch_size" in line


def test_a_config_path_that_is_no_file_is_said_to_be_none(tmp_path):
    error = refused(lambda: load_config(tmp_path))
    assert "is not a file" in str(error) and error.field == str(tmp_path)
