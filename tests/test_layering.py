"""A file imports only from the layers before its own, so that data flows one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flax_resnet"

LAYERS = [
    ["errors", "compile_cache", "machine", "memory", "determinism", "signals"],
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
    ["plot_style"],
    ["plots"],
    ["design_plot"],
    ["loop"],
    ["design_race", "paper"],
    ["commands"],
]
PAPER_LAYERS = [
    ["document", "plan", "data_sets", "architecture"],
    ["architecture_figure", "history"],
    ["training", "markdown", "html"],
    # Sections.
    ["figure1", "figure3", "figure4", "figure5_6", "optimizers", "results", "design", "provenance"],
    ["report"],
]


def ranks(layers: list[list[str]]) -> dict[str, int]:
    return {name: rank for rank, names in enumerate(layers) for name in names}


RANK, PAPER_RANK = ranks(LAYERS), ranks(PAPER_LAYERS)


def imports(path: Path, package: str = "flax_resnet") -> set[str]:
    """First names below a package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == package:
                found |= {alias.name for alias in node.names}
            elif node.module.startswith(f"{package}."):
                found.add(node.module.removeprefix(f"{package}.").split(".")[0])
        elif isinstance(node, ast.Import):
            names = (a.name for a in node.names if a.name.startswith(f"{package}."))
            found |= {name.removeprefix(f"{package}.").split(".")[0] for name in names}
    return found


def test_every_module_has_a_layer():
    names = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert names == set(RANK) - {"commands", "paper"}
    assert {p.stem for p in (PACKAGE / "paper").glob("*.py")} - {"__init__"} == set(PAPER_RANK)


def test_modules_import_from_earlier_layers_alone():
    for path in PACKAGE.glob("*.py"):
        if path.stem in ("__init__", "__main__"):
            continue
        for name in imports(path):
            assert RANK[name] < RANK[path.stem], f"{path.name} imports {name}"


def test_the_papers_modules_import_from_earlier_layers_alone():
    for path in (PACKAGE / "paper").glob("*.py"):
        for name in imports(path) - {"paper"}:
            assert RANK[name] < RANK["paper"], f"{path.name} imports {name}"
        for name in imports(path, "flax_resnet.paper"):
            assert PAPER_RANK[name] < PAPER_RANK[path.stem], f"{path.name} imports {name}"


def test_a_command_imports_no_other_command():
    for path in (PACKAGE / "commands").glob("*.py"):
        text = path.read_text()
        others = [
            p.stem for p in path.parent.glob("*.py") if p.stem not in ("__init__", "arguments")
        ]
        for other in others:
            assert f"flax_resnet.commands.{other}" not in text, f"{path.name} imports {other}"
