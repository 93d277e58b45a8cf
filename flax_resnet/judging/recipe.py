"""What a run is and how to make it again."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flax_resnet import __version__
from flax_resnet.config.load import CONFIGS, flat_fields, load_config, to_json
from flax_resnet.judging.figures import network_summary
from flax_resnet.judging.judge import Judged
from flax_resnet.models.summary import format_summary
from flax_resnet.paper.data_note import describe_data
from flax_resnet.paper.provenance import describe_machine
from flax_resnet.process.machine import machine
from flax_resnet.report.document import Block, Folded, Listing, Paragraph, Section
from flax_resnet.runs.machines import read_machines


def data_label(judged: Judged) -> str:
    """The judged images in a few words."""
    if judged.dataset is not None:
        return Path(judged.dataset).name or judged.dataset
    return describe_data(judged.model.data, judged.model.config.dataset, None).label


def what_it_is(judged: Judged, epochs: int) -> str:
    """A run, trained for a number of epochs, in a few sentences."""
    model, config, data = judged.model, judged.model.config, judged.model.data
    described = describe_data(data, config.dataset, None).description
    split = {"val": "validation", "train": "training"}.get(judged.split, judged.split)
    height, width, _ = model.image_shape
    return (
        f"{config.model}, {network_summary(judged).params:,} parameters, trained for {epochs} of "
        f"{config.num_epochs} epochs on {described}. {data.train_images:,} training, "
        f"{data.val_images:,} validation and {data.test_images:,} test images of {height} x "
        f"{width} pixels in {len(data.class_names)} classes. Judged after step {model.step:,} on "
        f"{len(judged.scores.labels):,} {split} images ({data_label(judged)})."
    )


def command_of(config: ConfigDict, workdir: Path) -> str:
    """The shortest command that trains a config, from the bundled config that is nearest to it."""
    wanted = flat_fields(config)

    def changes(name: str) -> dict[str, Any]:
        fields = flat_fields(load_config(name))
        return {field: value for field, value in wanted.items() if value != fields[field]}

    names = [p.stem for p in sorted(CONFIGS.glob("*.py")) if p.stem not in ("__init__", "base")]
    name, found = min(((n, changes(n)) for n in names), key=lambda pair: len(pair[1]))
    overrides = [shlex.quote(f"--config.{field}={value}") for field, value in found.items()]
    command = f"python -m flax_resnet train --config {name} --workdir {shlex.quote(str(workdir))}"
    return " \\\n    ".join([command, *overrides])


def making_section(judged: Sequence[Judged], names: Sequence[str], page: str) -> Section:
    """Commands (`page`: the page's own), layers, configs, machines and versions."""
    trained = "\n\n".join(command_of(one.model.config, one.workdir) for one in judged)
    blocks: list[Block] = [Listing("The training", trained), Listing("This page", page)]
    for one, name in zip(judged, names, strict=True):
        summary = format_summary(network_summary(one), name)
        blocks.append(Folded(Listing(f"Layers of {name}", summary)))
        blocks.append(Folded(Listing(f"Config of {name}", to_json(one.model.config).rstrip())))
        blocks.append(Paragraph(f"{name} was trained on: {_machines(one.workdir)}."))
    described = describe_machine(machine())
    blocks.append(Paragraph(f"Page written by flax_resnet {__version__} on: {described}."))
    return Section("making", "How to make it again", "", tuple(blocks))


def _machines(workdir: Path) -> str:
    try:
        texts = [describe_machine(found) for found in read_machines(workdir)]
    except (KeyError, TypeError, AttributeError):  # not what this program writes
        texts = []
    return "; then ".join(texts) or "an unknown machine"
