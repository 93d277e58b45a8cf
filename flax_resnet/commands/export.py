"""A trained run for other programs: its weights, or its network as a program."""

import argparse
import json
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from flax_resnet.config.build import build_model
from flax_resnet.config.load import design_of, to_json
from flax_resnet.formats import program
from flax_resnet.formats.onnx_graph import to_onnx
from flax_resnet.formats.torch_names import PROGRAMS, check_design, pooled_size, to_torch
from flax_resnet.formats.torch_writer import write_torch_archive
from flax_resnet.inference.model import Model, load
from flax_resnet.process.errors import UserError
from flax_resnet.process.files import replacing, write_text

SUFFIXES = {
    "safetensors": (".safetensors",),
    "torch": (".safetensors", ".pt", ".pth"),
    "stablehlo": (".stablehlo",),
    "onnx": (".onnx",),
}


def run(args: argparse.Namespace) -> int:
    """Writes the file, and beside a StableHLO program what runs it; prints its size."""
    output = Path(args.output)
    suffixes = SUFFIXES[args.format]
    if output.suffix not in suffixes or output.is_dir():  # not a file of the run, by mistake
        raise UserError(
            f"--output {args.output!r}: name a {' or '.join(suffixes)} file for --format "
            f"{args.format}",
            field="--output",
        )
    model = load(args.workdir, args.checkpoint)
    if args.format == "stablehlo":
        _write(output, program.to_stablehlo(model))
        write_text(output.with_name(f"{output.name}.json"), program.about(model))
        runner = output.with_name(f"{output.name}.py")
        write_text(runner, program.RUNNER.format(name=output.name))
        what = f"{', '.join(program.PLATFORMS)}; run it with {runner}"
    elif args.format == "onnx":
        _write(output, to_onnx(model))
        what = f"{len(model.class_names):,} classes"
    else:
        what = f"{_write_weights(model, output, args):,} arrays"
    print(f"{output}: {what}, {output.stat().st_size / 2**20:.2f} MiB")
    return 0


def _write(output: Path, content: bytes) -> None:
    with replacing(output) as part:
        part.write_bytes(content)


def _write_weights(model: Model, output: Path, args: argparse.Namespace) -> int:
    """Writes params and batch_stats under our names or PyTorch's; returns their number."""
    metadata = {
        "config": to_json(model.config),
        "class_names": json.dumps(model.class_names),
        "image_shape": json.dumps(model.image_shape),
        "step": str(model.step),
    }
    if args.format == "torch":
        arrays = _torch_arrays(model, args.program, args.workdir)
        metadata["format"] = "pt"  # what safetensors' readers look for
    else:
        flat = traverse_util.flatten_dict(dict(model.variables), sep="/")
        arrays = {name: np.asarray(value) for name, value in flat.items()}
    if output.suffix == ".safetensors":
        _write(output, save(arrays, metadata))
    else:
        with replacing(output) as part:
            write_torch_archive(part, arrays)
    return len(arrays)


def _torch_arrays(model: Model, name: str | None, workdir: str) -> dict[str, np.ndarray]:
    design = design_of(model.config)
    check_design(design, workdir)
    usual = "torchvision" if design.stem == "imagenet" else "paper"
    pooled = pooled_size(build_model(model.config, len(model.class_names)), model.image_shape)
    return to_torch(model.variables, PROGRAMS[name or usual], pooled, steps=model.step)
