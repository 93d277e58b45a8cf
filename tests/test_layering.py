"""A file imports only from the layers before its own, so that data flows one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flax_resnet"

LAYERS = [
    ["errors", "compile_cache", "memory", "determinism", "signals"],
    ["atomic_files", "number_ranges", "console"],
    ["manifest"],
    # Network.
    ["layers", "winograd"],
    ["cpu_conv"],
    ["resnet"],
    ["models"],
    ["schedules", "optimizers"],
    ["rules"],
    ["config"],
    ["design_config"],
    # Data.
    ["image_files"],
    ["image_arrays"],
    ["dataset_type"],
    ["dataset_cache"],
    ["npz_source", "folder_source", "digits_source", "cifar10_archive", "tfds_download"],
    ["tfds_reader"],
    ["tfds_source"],
    ["datasets"],
    ["augment"],
    ["batches"],
    # Training.
    ["train_state"],
    ["steps"],
    ["parallel"],
    ["build", "evaluation", "summary"],
    ["design_cost"],
    ["design_space"],
    ["design_table"],
    ["conv_choice", "runs"],
    ["metrics_log", "checkpoints"],
    ["trained", "reference_log", "progress", "profile"],
    ["plots"],
    ["design_plot"],
    ["loop"],
    ["design_race"],
    ["commands"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """First names below flax_resnet that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts == ["flax_resnet"]:
                found |= {alias.name for alias in node.names}
            elif parts[0] == "flax_resnet":
                found.add(parts[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("flax_resnet.")}
    return found


def test_every_module_has_a_layer():
    names = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert names == set(RANK) - {"commands"}


def test_modules_import_from_earlier_layers_alone():
    for path in PACKAGE.glob("*.py"):
        if path.stem in ("__init__", "__main__"):
            continue
        for name in imports(path):
            assert RANK[name] < RANK[path.stem], f"{path.name} imports {name}"


def test_a_command_imports_no_other_command():
    for path in (PACKAGE / "commands").glob("*.py"):
        text = path.read_text()
        others = [
            p.stem for p in path.parent.glob("*.py") if p.stem not in ("__init__", "arguments")
        ]
        for other in others:
            assert f"flax_resnet.commands.{other}" not in text, f"{path.name} imports {other}"
