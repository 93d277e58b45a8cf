"""The page of a trained network: what it is, and where to give it pictures."""

from importlib.resources import files
from pathlib import Path

import jax

from flax_resnet.inference.model import Model
from flax_resnet.paper.data_note import describe_data
from flax_resnet.report.escape import escape_html
from flax_resnet.report.html import html_page
from flax_resnet.runs.folder import RunFolder
from flax_resnet.runs.metrics_log import read_epochs
from flax_resnet.serving.app import MAX_BYTES

# White signs on black, which a mouse can draw; by the first part of a tfds name.
DRAWN = ("digits", "mnist", "emnist", "kmnist")
_NAMED = 20  # classes that the page names


def make_page(model: Model, workdir: str, draw: bool | None = None) -> str:
    """The page as HTML that loads nothing.

    Args:
      model: loaded from the run.
      workdir: the run's folder.
      draw: whether it has a canvas; None: where the data are known to be drawn.

    Raises:
      UserError: the run's metrics are corrupt.
    """
    if draw is None:
        draw = model.config.dataset.split("/")[0] in DRAWN
    template = files("flax_resnet.serving").joinpath("page.html").read_text("utf-8")
    head, _, body = template.partition("<main")
    height, width, _ = model.image_shape
    data = {"draw": int(draw), "bytes": MAX_BYTES, "height": height, "width": width}
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    facts = "".join(f"<p>{escape_html(text)}</p>\n" for text in _facts(model, workdir))
    label = describe_data(model.data, model.config.dataset, None).label
    title = f"{Path(workdir).resolve().name}, {label}"
    return html_page(title, f"{facts}<main {attributes}{body}", head)


def _facts(model: Model, workdir: str) -> list[str]:
    """What the network is, how good, and what it knows, in a few sentences."""
    params = sum(array.size for array in jax.tree.leaves(model.variables["params"]))
    data = describe_data(model.data, model.config.dataset, None)
    network = f"{model.config.model}, {params:,} parameters"
    for row in read_epochs(RunFolder(workdir)):
        if row["step"] == model.step:
            network += (
                f", trained for {row['epoch']} epochs on {data.label}: {row['test_accuracy']:.2%} "
                f"of {model.data.test_images:,} test images right"
            )
    names = model.class_names
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return [
        f"{network}.",
        f"It tells {len(names):,} classes apart: {', '.join(names[:_NAMED])}{more}.",
    ]
