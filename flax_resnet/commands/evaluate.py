"""Loss and accuracy of a trained run on its test images."""

import argparse
import json

from flax_resnet.commands.arguments import add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_run(parser)
    parser.add_argument("--data_dir", metavar="DIR", help="where tfds keeps its sets, if moved")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")


def run(args: argparse.Namespace) -> int:
    """Prints loss, accuracy and the number of images."""
    from flax_resnet.config.build import build_eval_step
    from flax_resnet.data.cache import default_cache_dir
    from flax_resnet.data.load import load_dataset
    from flax_resnet.engine.evaluate import Evaluator
    from flax_resnet.engine.mesh import DataParallel
    from flax_resnet.inference.model import load_trained
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.errors import UserError

    keep_compiled(default_cache_dir())
    parallel = DataParallel()
    trained = load_trained(args.workdir, args.checkpoint, parallel.replicated)
    config = trained.config
    dataset = load_dataset(
        config.dataset,
        data_dir=args.data_dir or config.data_dir,
        archive=config.archive,
        image_size=config.image_size,
        log=lambda _: None,
    )
    if dataset.digest != trained.data.digest:
        raise UserError(
            f"the images of {dataset.source} are not those that {args.workdir} was trained with"
        )
    dataset = dataset.first(config.train_images, config.test_images)
    steps = parallel.compile_eval(build_eval_step(config, dataset.num_classes))
    evaluator = Evaluator(
        steps, parallel, dataset.test_images, dataset.test_labels, config.eval_batch_size
    )
    result = evaluator(trained.variables)
    assert result is not None  # nothing asked it to stop
    if args.json:
        figures = {"test_loss": result.loss, "test_accuracy": result.accuracy}
        print(json.dumps({"step": trained.step, "images": result.images} | figures))
    else:
        print(
            f"step {trained.step}: test loss {result.loss:.4f}, accuracy {result.accuracy:.2%} "
            f"of {result.images:,} images"
        )
    return 0
