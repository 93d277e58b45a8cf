"""From a design to a config, and to a config file that trains it."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from flax_resnet.config.load import design_of, flat_fields, load_config
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text

BASE_MODEL = "revised"  # what the parts of a design change
ALWAYS_WRITTEN = ("stage_sizes", "stage_channels", "kernel_sizes", "shortcut_kernels", "pool_size")


def with_design(config: ConfigDict, design: Design) -> ConfigDict:
    """A copy of a config with another network; all else, the recipe, stays."""
    changed = config.copy_and_resolve_references()
    changed.model = BASE_MODEL
    for field in changed.design:
        value = getattr(design, field)
        if field == "pool_size":
            changed.design.pool_size = value or 0
        elif field in ALWAYS_WRITTEN or value != getattr(MODELS[BASE_MODEL], field):
            changed.design[field] = value
        else:
            changed.design[field] = None
    return changed


def write_config(
    recipe: ConfigDict, design: Design, base: ConfigDict, path: Path, title: str
) -> None:
    """Writes a config file of a design with a recipe, and loads it to see that it is right.

    The file starts from the defaults and sets what differs from it.

    Args:
      recipe: every field but the design.
      design: the network.
      base: what default_config returns.
      path: the file, .py.
      title: first line of the file's docstring, without its full stop.

    Raises:
      UserError: the file's name is no config's, or it cannot be written.
    """
    if path.suffix != ".py":
        raise UserError(f"config file {path}: its name must end in .py")
    config = with_design(recipe, design)
    write_text(path, _file_text(config, base, f"python train.py --config {path}", title))
    assert design_of(load_config(path)) == design, f"{path} gives another design"


def _file_text(config: ConfigDict, base: ConfigDict, command: str, title: str) -> str:
    base_values = flat_fields(base)
    lines = [
        f'"""{title}.',
        "",
        command,
        '"""',
        "",
        "from ml_collections import ConfigDict",
        "",
        "from flax_resnet.config import default_config",
        "",
        "",
        "def get_config() -> ConfigDict:",
        '    """Returns the defaults with this design and its recipe."""',
        "    config = default_config()",
    ]
    for field, value in flat_fields(config).items():
        if value != base_values[field]:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
            lines.append(f"    config.{field} = {text}")
    return "\n".join([*lines, "    return config"]) + "\n"
