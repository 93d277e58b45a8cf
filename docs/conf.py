"""The site. CONTRIBUTING.md says how to build it.

Its sources are the files that are read on GitHub, README.md first, so that links serve both.
"""

import argparse
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from flax_resnet import __version__
from flax_resnet.__main__ import COMMANDS
from flax_resnet.commands.arguments import add_arguments
from flax_resnet.config.fields import FIELDS

project = "flax_resnet"
version = release = __version__
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = html_show_sphinx = html_copy_source = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*", "docs/paper/report.md", "notebooks/*",
]  # fmt: skip

myst_enable_extensions = ["deflist", "html_image"]
myst_heading_anchors = 3  # as GitHub makes them
nb_execution_mode = "off"  # the outputs are stored; a test runs them anew
nb_merge_streams = True

default_role = "code"  # docstrings are written as Markdown
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
# What is not documented here: other projects, whose lists of names need the network, and types of
# the inner rooms.
nitpick_ignore_regex = [
    ("py:.*", r"(?!flax_resnet\.).*"),
    ("py:class", r"flax_resnet\.(engine|data\.batches|runs|training\.save_policy)\..*"),
]

CONTENTS = """
```{toctree}
:hidden:
:caption: Guide
Quick tour <notebooks/quickstart>
docs/usage
docs/recipes
docs/data
docs/performance
Notes on performance <docs/performance_notes>
docs/reliability
Formats <docs/formats>
docs/judging
docs/serving
Scaling <docs/scaling>
Cost model <docs/cost_model>
Paper report <docs/paper/report>
```
```{toctree}
:hidden:
:caption: Reference
docs/api
docs/fields
docs/commands
```
```{toctree}
:hidden:
:caption: Project
CONTRIBUTING
CHANGELOG
```
"""


def fields() -> str:
    """Each field by section: its default, its help, what it may be."""
    parts = []
    for section in dict.fromkeys(field.section for field in FIELDS.values()):
        parts.append(f"\n## {section}\n")
        parts += [
            f"`{f.name}` = `{f.default!r}`\n:   {f.help}  \n    *{f.rule.words}*\n"
            for f in FIELDS.values()
            if f.section == section
        ]
    return "\n".join(parts)


def commands() -> str:
    """Each command's --help."""
    parts = []
    for name, text in COMMANDS.items():
        parser = argparse.ArgumentParser(f"flax_resnet {name}", description=text)
        add_arguments(parser, name)
        parts.append(f"\n## {name}\n\n```text\n{parser.format_help()}```\n")
    return "".join(parts)


def add_generated(app: Sphinx, docname: str, source: list[str]) -> None:
    """Appends what is not in the files themselves."""
    generated = {root_doc: lambda: CONTENTS, "docs/fields": fields, "docs/commands": commands}
    if docname in generated:
        source[0] += generated[docname]()


def unlink_folders(app: Sphinx, doctree: nodes.document) -> None:
    """A folder of the repository has no page: its name stays."""
    here = Path(doctree["source"]).parent
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] == "myst" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def copy_front_page(app: Sphinx, error: Exception | None) -> None:
    """Where browsers look for it."""
    if error is None:
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_generated)
    app.connect("doctree-read", unlink_folders)
    app.connect("build-finished", copy_front_page)
