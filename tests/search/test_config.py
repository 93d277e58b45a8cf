"""A design's config: the recipe stays, and the file that is written gives it back."""

import pytest

from flax_resnet.config.load import default_config, design_of, load_config, to_json
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError
from flax_resnet.search.config import with_design, write_config
from flax_resnet.search.space import PAPER_DESIGN
from tests.conftest import ROOT

DESIGNS = [
    PAPER_DESIGN,
    Design((4, 4, 3), (64, 128, 256), (3, 3, 3), (1, 1, 1), 8),
    Design((1, 2), (8, 12), (3, 5), (1, 3), 2, block="bottleneck", bottleneck_stride="3x3"),
    Design((2,), (16,), (3,), (1,), None, shortcut="pad", stem="imagenet"),
]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", ["base", "revised", "quickstart", "resnet20", "plain20"])
def test_a_written_config_is_the_recipe_with_the_design(design, name, tmp_path):
    recipe = load_config(
        ROOT / f"configs/{name}.py", ["--config.learning_rate=0.05", "--config.data_dir=it's"]
    )
    path = tmp_path / "mine.py"
    write_config(recipe, design, path, "Mine")
    loaded = load_config(path)
    assert design_of(loaded) == design
    assert to_json(loaded) == to_json(with_design(recipe, design))
    before, after = recipe.to_dict(), loaded.to_dict()
    assert {f for f in before if before[f] != after[f]} <= {"model", "design"}


def test_a_written_config_sets_only_what_differs(tmp_path):
    write_config(load_config(ROOT / "configs/revised.py"), DESIGNS[1], tmp_path / "x.py", "A")
    lines = (tmp_path / "x.py").read_text().splitlines()
    assert [line.strip() for line in lines if "config." in line and " = " in line] == [
        "config.design.kernel_sizes = (3, 3, 3)",
        "config.design.pool_size = 8",
        "config.design.shortcut_kernels = (1, 1, 1)",
        "config.design.stage_channels = (64, 128, 256)",
        "config.design.stage_sizes = (4, 4, 3)",
        'config.reference_log = "paper"',
    ]


def test_a_config_file_that_train_py_could_not_load_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        write_config(default_config(), PAPER_DESIGN, tmp_path / "x.txt", "A")
    assert caught.value.field == str(tmp_path / "x.txt")
    assert list(tmp_path.iterdir()) == []
