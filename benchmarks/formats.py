"""Size, speed and agreement of a run's network in every format it is exported to.

Each file gets the run's test images. Its probabilities are compared with those of
`flax_resnet.load`; batches are timed in turn, on all cores.
"""

import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import export as jax_export
from safetensors.numpy import load_file

from benchmarks import measure
from flax_resnet.__main__ import main as flax_resnet
from flax_resnet.config.build import build_model
from flax_resnet.formats.torch_names import PROGRAMS, pooled_size, torch_name
from flax_resnet.inference.model import Model, load
from flax_resnet.inference.test_images import load_test_images

Run = Callable[[np.ndarray], np.ndarray]  # uint8 images -> probabilities

FILES = {
    "safetensors": "a.safetensors",
    "torch": "torch.safetensors",
    "stablehlo": "a.stablehlo",
    "onnx": "a.onnx",
}


def onnx_runner(path: Path) -> Run:
    """ONNX Runtime's, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def stablehlo_runner(path: Path) -> Run:
    """JAX's, from the file alone."""
    network = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda images: np.asarray(network.call(images))


def torch_runner(path: Path, model: Model) -> Run:
    """PyTorch's, eager and channels_last, of the weights under its names."""
    import torch
    from safetensors.torch import load_file

    from flax_resnet.config.load import design_of
    from tests.torch_twin import TorchResNet

    # The twin has our names; the file has those of PyTorch's programs.
    twin = TorchResNet(design_of(model.config), len(model.class_names))
    names = PROGRAMS["paper"]
    state = load_file(path)
    translated = {}
    for name in twin.state_dict():
        *modules, leaf = name.split(".")
        translated[name] = state[torch_name(("params", *modules, leaf), names)]
    twin.load_state_dict(translated)
    twin = twin.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    mean, std = (
        torch.tensor(tuple(v)).reshape(1, 3, 1, 1) for v in (model.config.mean, model.config.std)
    )

    def run(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            scaled = ((pixels.float() / 255 - mean) / std).contiguous(
                memory_format=torch.channels_last
            )
            return torch.softmax(twin(scaled), 1).numpy()

    return run


def own_runner(path: Path, model: Model) -> Run:
    """This program's, with the weights of the file."""
    variables: dict[str, Any] = {}
    for name, array in load_file(path).items():
        *groups, leaf = name.split("/")
        part = variables
        for group in groups:
            part = part.setdefault(group, {})
        part[leaf] = array
    return Model(model.config, model.data, variables, model.step).probabilities


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Exports, compares and times; returns the figures."""
    parser = measure.arguments("formats", __doc__)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a trained run")
    parser.add_argument("--images", type=int, metavar="N", help="compare the first N alone")
    parser.add_argument("--batch", type=int, default=500, help="images timed (default: 500)")
    args = parser.parse_args(argv)
    model = load(args.workdir)
    images, labels = load_test_images(model, args.workdir)
    images, labels = images[: args.images], labels[: args.images]
    runners: dict[str, Run] = {"flax_resnet.load": model.probabilities}
    sizes: dict[str, float | None] = {"flax_resnet.load": None}
    with tempfile.TemporaryDirectory() as folder:
        for format_, name in FILES.items():
            path = Path(folder) / name
            command = ["export", "--workdir", args.workdir, "--format", format_]
            command += ["--program", "paper"] if format_ == "torch" else []
            if not _can_run(format_, model) or flax_resnet([*command, "--output", str(path)]):
                continue  # a package that is not there, a design that PyTorch's programs lack
            runners[format_] = _runner(format_, path, model)
            sizes[format_] = path.stat().st_size / 2**20
    expected = model.probabilities(images)
    batch = images[: 2 if args.quick else args.batch]
    rounds = 1 if args.quick else 5
    seconds = measure.interleave({k: lambda r=r: r(batch) for k, r in runners.items()}, rounds)
    rows = []
    for name, run in runners.items():
        found = np.concatenate(
            [run(images[i : i + len(batch)]) for i in range(0, len(images), len(batch))]
        )
        rows.append(
            {
                "format": name,
                "MiB": sizes[name],
                "images_per_second": len(batch) / statistics.median(seconds[name]),
                "accuracy": float((found.argmax(1) == labels).mean()),
                "other_top_1": int((found.argmax(1) != expected.argmax(1)).sum()),
                "largest_difference": float(np.abs(found - expected).max()),
            }
        )
    return measure.report("formats", rows, args.output, images=len(images), batch=len(batch))


def _can_run(format_: str, model: Model) -> bool:
    package = {"torch": "torch", "onnx": "onnxruntime"}.get(format_, "jax")
    network = build_model(model.config, len(model.class_names))
    whole = pooled_size(network, model.image_shape) == (1, 1)  # which the tests' twin needs
    return importlib.util.find_spec(package) is not None and (whole or format_ != "torch")


def _runner(format_: str, path: Path, model: Model) -> Run:
    if format_ == "onnx":
        return onnx_runner(path)
    if format_ == "stablehlo":
        return stablehlo_runner(path)
    return torch_runner(path, model) if format_ == "torch" else own_runner(path, model)


if __name__ == "__main__":
    main(sys.argv[1:])
