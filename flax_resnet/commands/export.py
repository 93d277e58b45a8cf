"""A trained run's weights as one file that other programs read without running anything."""

import argparse
import json
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from flax_resnet.config.load import to_json
from flax_resnet.inference.model import load
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import replacing


def run(args: argparse.Namespace) -> int:
    """Writes params and batch_stats under flat names, with config and class names as metadata."""
    output = Path(args.output)
    if output.suffix != ".safetensors" or output.is_dir():  # not a file of the run, by mistake
        raise UserError(f"--output {args.output!r}: name a .safetensors file", field="--output")
    model = load(args.workdir, args.checkpoint)
    flat = traverse_util.flatten_dict(dict(model.variables), sep="/")
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    metadata = {
        "config": to_json(model.config),
        "class_names": json.dumps(model.class_names),
        "image_shape": json.dumps(model.image_shape),
        "step": str(model.step),
    }
    with replacing(output) as part:
        part.write_bytes(save(arrays, metadata))
    print(f"{output}: {len(arrays)} arrays, {output.stat().st_size / 2**20:.2f} MiB")
    return 0
