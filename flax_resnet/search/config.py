"""A design as a config, and as a config file."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from flax_resnet.config.load import default_config, design_of, flat_fields, load_config
from flax_resnet.models.designs import MODELS
from flax_resnet.models.resnet import Design
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import write_text

BASE_MODEL = "revised"  # the named design whose parts are changed
ALWAYS_WRITTEN = ("stage_sizes", "stage_channels", "kernel_sizes", "shortcut_kernels", "pool_size")


def with_design(config: ConfigDict, design: Design) -> ConfigDict:
    """A copy of a config with another network and the same recipe."""
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


def write_config(recipe: ConfigDict, design: Design, path: Path, title: str) -> None:
    """Writes a config file for a design, and loads it to check it.

    The file sets what differs from the defaults.

    Args:
      recipe: every field but the design.
      design: the network.
      path: the file, .py.
      title: first line of the file's docstring, without the period.

    Raises:
      UserError: not a .py file, or it cannot be written.
    """
    if path.suffix != ".py":
        raise UserError(f"{path}: a config file's name must end in .py", field=str(path))
    config = with_design(recipe, design)
    write_text(path, _file_text(config, f"python train.py --config {path}", title))
    assert design_of(load_config(path)) == design, f"{path} gives another design"


def _file_text(config: ConfigDict, command: str, title: str) -> str:
    defaults = flat_fields(default_config())
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
        if value != defaults[field]:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
            lines.append(f"    config.{field} = {text}")
    return "\n".join([*lines, "    return config"]) + "\n"
