"""A trained run's weights as one file that other programs read without running anything."""

import argparse

from flax_resnet.commands.arguments import add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_run(parser)
    parser.add_argument("--format", choices=("safetensors",), default="safetensors")
    parser.add_argument("--output", required=True, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Writes params and batch_stats under flat names, with config and class names beside."""
    import json
    from pathlib import Path

    import numpy as np
    from flax import traverse_util
    from safetensors.numpy import save

    from flax_resnet.config.load import to_json
    from flax_resnet.inference.model import load_trained
    from flax_resnet.process.errors import UserError
    from flax_resnet.process.files import replacing

    output = Path(args.output)
    if not output.name or output.is_dir():
        raise UserError(f"--output {args.output!r} is no name of a file")
    trained = load_trained(args.workdir, args.checkpoint)
    flat = traverse_util.flatten_dict(dict(trained.variables), sep="/")
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    metadata = {
        "config": to_json(trained.config),
        "class_names": json.dumps(trained.data.class_names),
        "image_shape": json.dumps(trained.data.image_shape),
        "step": str(trained.step),
    }
    with replacing(output) as part:
        part.write_bytes(save(arrays, metadata))
    print(f"{output}: {len(arrays)} arrays, {output.stat().st_size / 2**20:.2f} MiB")
    return 0
