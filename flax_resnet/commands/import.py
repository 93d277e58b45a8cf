"""The weights of a PyTorch file as a run's folder."""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from flax_resnet.commands.arguments import KNOWN_SETS
from flax_resnet.config.load import load_config
from flax_resnet.data.load import load_dataset
from flax_resnet.data.names import check_name
from flax_resnet.formats.torch_import import import_torch
from flax_resnet.process.errors import UserError, reason
from flax_resnet.process.files import read_text
from flax_resnet.runs.folder import DataInfo


def run(args: argparse.Namespace) -> int:
    """Writes the folder; prints what it holds."""
    config = load_config(args.config, args.overrides)
    data = _from_names(args, config) if args.class_names else _from_dataset(config)
    params = import_torch(Path(args.file), config, data, args.workdir)
    print(f"{args.workdir}: {params:,} parameters, {len(data.class_names):,} classes")
    return 0


def _from_dataset(config: ConfigDict) -> DataInfo:
    try:
        dataset = load_dataset(
            config.dataset,
            data_dir=config.data_dir,
            archive=config.archive,
            image_size=config.image_size,
            loading=config.data_loading,
        )
    except UserError as error:
        raise UserError(
            f"{error} (or name the classes: --class-names FILE)", code=error.code, field=error.field
        ) from error
    kept = dataset.first(config.train_images, config.test_images)
    return DataInfo(
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        train_images=len(kept.train_labels),
        test_images=len(kept.test_labels),
        val_images=0,
        digest=dataset.digest,
        source=dataset.source,
    )


def _from_names(args: argparse.Namespace, config: ConfigDict) -> DataInfo:
    """Classes from a file, images from the arguments: no data set is read."""
    path = Path(args.class_names)
    try:
        names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise UserError(
            f"--class-names {path} cannot be read: {reason(error)}",
            code="unreadable",
            field="--class-names",
        ) from error
    for name in names:
        check_name(name, "--class-names: the class", "--class-names")
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"--class-names {path} must have a name on each line, each one once",
            field="--class-names",
        )
    side = args.image_size or config.image_size or KNOWN_SETS.get(config.dataset, (0, 0))[1]
    if not side:
        raise UserError(
            f"--image-size is needed for config.dataset={config.dataset!r}",
            code="missing",
            field="--image-size",
        )
    return DataInfo(names, (side, side, 3), 0, 0, 0, digest="", source=str(path))
