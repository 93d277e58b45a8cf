"""The arguments of the commands. This file imports no JAX, so that --help is fast."""

import argparse
import importlib
from typing import TYPE_CHECKING

from flax_resnet.commands.argument_types import positive
from flax_resnet.process.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from flax_resnet.config.fields import Rule

# Classes and image sides of well-known sets: counting a network must need no data.
KNOWN_SETS = {
    "cifar10": (10, 32),
    "cifar100": (100, 32),
    "digits": (10, 32),
    "svhn_cropped": (10, 32),
    "mnist": (10, 28),
    "fashion_mnist": (10, 28),
    "imagenet2012": (1000, 224),
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Declares a command's arguments."""
    declare = {
        "train": _add_train,
        "summary": _add_summary,
        "evaluate": _add_evaluate,
        "predict": _add_predict,
        "export": _add_export,
        "import": _add_import,
    }.get(command)
    if declare is None:
        declare = importlib.import_module(f"flax_resnet.commands.{command}").add_arguments
    declare(parser)


class _HelpConfig(argparse.Action):
    """Prints every config field and exits."""

    def __call__(self, *_: object) -> None:
        from flax_resnet.config.fields import describe_fields

        print(describe_fields())
        raise SystemExit(0)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        default="quickstart",
        metavar="NAME|FILE",
        help="a config's name or file (default: %(default)s); --config.FIELD=VALUE changes a field",
    )
    parser.add_argument(
        "--help-config", action=_HelpConfig, nargs=0, help="list every config field and exit"
    )
    parser.add_argument("--workdir", metavar="DIR", help="default: runs/<config name>")
    parser.add_argument("--profile", metavar="DIR", help="write a trace of a few steps there")
    together = parser.add_argument_group(
        "several processes",
        "one command each, on one host or several; --config.distributed=auto finds these itself "
        "under SLURM, Open MPI, Kubernetes and on Cloud TPU",
    )
    together.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    together.add_argument("--num-processes", type=positive, metavar="N", help="how many there are")
    together.add_argument("--process-id", type=int, metavar="I", help="which this is, from 0")
    parser.set_defaults(overrides=[])


def _add_summary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, or a name")
    add_classes_and_image_size(parser)
    parser.set_defaults(overrides=[])


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add_judging(parser)
    parser.add_argument("--details", action="store_true", help="also print the other figures")
    parser.add_argument(
        "--sheets",
        metavar="DIR",
        help="write mistakes, doubtful hits and likely label errors there",
    )
    add_table_format(parser, "one JSON object per run and line, with every figure")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files of any size, folders, patterns ('a/*.png'), .npz or .pkl files of many; "
        "-: names from the standard input",
    )
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--format",
        choices=("text", "json", "csv", "kaggle"),
        default="text",
        help="json: an object a line; kaggle: ID,Labels (default: %(default)s)",
    )
    parser.add_argument(
        "--json", dest="format", action="store_const", const="json", help="as --format json"
    )
    parser.add_argument("--output", metavar="FILE", help="a file in place of stdout")


def _add_export(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--format",
        choices=("safetensors", "torch", "stablehlo", "onnx"),
        default="safetensors",
        help="weights under this program's names or under PyTorch's (.safetensors, .pt or .pth), "
        "or a program that needs this package no more (default: %(default)s)",
    )
    parser.add_argument(
        "--program",
        choices=("paper", "kuangliu", "torchvision", "timm"),  # of formats/torch_names.py
        help="for torch: whose names (default: by the stem, torchvision's or the paper's)",
    )
    parser.add_argument("--output", required=True, metavar="FILE")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a .safetensors, .pt or .pth file")
    parser.add_argument("--format", choices=("torch",), default="torch")
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="names the network")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="text, a class a line, in place of the config's data set, which then is not read",
    )
    parser.add_argument(
        "--image-size", type=positive, metavar="N", help="with --class-names: side in pixels"
    )
    parser.set_defaults(overrides=[])


def add_run(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """--workdir, of one run or several, and --checkpoint last or best."""
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        nargs="+" if several else None,
        help="folders of trained runs" if several else "folder of a trained run",
    )
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="best: of the highest validation accuracy (default: %(default)s)",
    )


# The arguments of judging.judge.judge that add_judging declares.
JUDGING = ("checkpoint", "dataset", "split", "data_dir", "first", "views", "corruptions")


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Runs, and what to judge them on."""
    add_run(parser, several=True)
    parser.add_argument("--data-dir", metavar="DIR", help="where tfds keeps its sets, if moved")
    parser.add_argument("--data_dir", dest="data_dir", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", metavar="NAME", help="another data set with the run's classes")
    splits = ("test", "validation", "train")  # of inference/test_images.py
    parser.add_argument("--split", choices=splits, default="test", help="default: %(default)s")
    parser.add_argument("--first", type=positive, metavar="N", help="take the first N images only")
    parser.add_argument(
        "--views",
        choices=("none", "mirror", "mirror_shift"),  # of config.test_views
        help="also give the accuracy of the mean over these views (default: the run's test_views)",
    )
    parser.add_argument(
        "--corruptions",
        action="store_true",
        help="also give the accuracy under 7 common shifts of the images, at 5 severities each",
    )


def add_table_format(parser: argparse.ArgumentParser, json_help: str) -> None:
    """--json or --csv."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help=json_help)
    formats.add_argument("--csv", action="store_true", help="a CSV table, a row per run")


def add_classes_and_image_size(parser: argparse.ArgumentParser) -> None:
    """--classes and --image-size, for sets that are not in KNOWN_SETS."""
    parser.add_argument("--classes", type=positive, help="number of classes, where unknown")
    parser.add_argument("--image-size", type=positive, help="image side in pixels, where unknown")


def classes_and_shape(
    args: argparse.Namespace, config: "ConfigDict"
) -> tuple[int, tuple[int, int, int]]:
    """Number of classes and (height, width, 3) of the config's images, from no data.

    Raises:
      UserError: one of them is neither known nor given, or out of range.
    """
    # Imported here: these load JAX.
    from flax_resnet.config.fields import IMAGE_SIDE, integer
    from flax_resnet.data.dataset import MAX_CLASSES

    known_classes, known_side = KNOWN_SETS.get(config.dataset, (None, None))

    def known(flag: str, rule: "Rule", given: int | None, otherwise: int | None) -> int:
        value = otherwise if given is None else given
        if value is None:
            raise UserError(
                f"{flag} is needed for config.dataset={config.dataset!r}",
                code="missing",
                field=flag,
            )
        if not rule(value):
            raise UserError(f"{flag} is {value}: it must be {rule.words}", field=flag)
        return value

    classes = known("--classes", integer(1, MAX_CLASSES), args.classes, known_classes)
    side = known("--image-size", IMAGE_SIDE, args.image_size, config.image_size or known_side)
    return classes, (side, side, 3)
