"""Nothing that is read as data can run as a program; only a config file is one, by design."""

import ast
from pathlib import Path

import numpy as np
import pytest

from flax_resnet.data.image_files import FORMATS, read_image
from flax_resnet.process.errors import UserError
from tests.dataset_files import refused, write_npz

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "train.py", *sorted((ROOT / "flax_resnet").rglob("*.py"))]
# Their loaders run what a file holds. formats/pickles.py reads pickles without them.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MODULES |= {"torch", "yaml"}
BUILTINS = {"eval", "exec", "compile", "__import__"}


def loaders_of_code(source: str) -> list[str]:
    """Imports and calls in a program text that could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module.split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            plain = any(
                k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords
            )
            reads_arrays = name.split(".")[-1] in ("load", "read_array") and name.startswith("np.")
            if name in BUILTINS or (reads_arrays and not plain):
                found.append(ast.unparse(node))
    return found


def test_no_module_loads_code():
    assert {str(p): f for p in FILES if (f := loaders_of_code(p.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from torch import load", "eval('1')", "np.load(p)", "import yaml as y",
     "np.load(p, allow_pickle=True)", "np.lib.format.read_array(f)", "exec(text)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert loaders_of_code(source)


def test_a_pickle_in_an_npz_file_is_not_loaded(tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    write_npz(tmp_path / "a.npz", class_names=np.array([Harmful()], object))
    assert "Python objects" in str(refused(tmp_path / "a.npz", tmp_path))
    (tmp_path / "b.npz").write_bytes(b"\x80\x04cos\nsystem\n(X\x04\0\0\0truetR.")
    assert refused(tmp_path / "b.npz", tmp_path).code == "unreadable"
    assert not (tmp_path / "ran").exists()


def test_postscript_is_no_image(tmp_path):
    path = tmp_path / "a.png"  # Pillow goes by the content, and would start Ghostscript
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="not an image in a known format"):
        read_image(path)
    assert "EPS" not in FORMATS
