"""A room imports only from the rooms above it in this list, so that data flows one way."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "flax_resnet"

ROOMS = [
    "process",
    "report",
    "optim",
    "models",
    "data",
    "engine",
    "config",
    "runs",
    "inference",
    "formats",
    "plots",
    "training",
    "search",
    "paper",
    "judging",
    "serving",
    "commands",
]


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports from, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "flax_resnet":
                names |= {f"flax_resnet.{alias.name}" for alias in node.names}
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("flax_resnet.")} & set(ROOMS)


def test_the_package_is_its_rooms():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms == set(ROOMS)
    assert {p.name for p in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py", "api.py"}


def test_rooms_import_from_the_rooms_above_them():
    upward = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for room in ROOMS
        for path in (PACKAGE / room).rglob("*.py")
        for other in imported_rooms(path)
        if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not upward


def test_a_command_imports_no_other_command():
    shared = {"__init__", "arguments", "argument_types"}
    commands = {p.stem for p in (PACKAGE / "commands").glob("*.py")} - shared
    for path in (PACKAGE / "commands").glob("*.py"):
        for other in commands - {path.stem}:
            assert f"flax_resnet.commands.{other}" not in path.read_text(), path.name
