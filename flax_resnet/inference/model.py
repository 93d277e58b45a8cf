"""A trained network: load it from its run, use it, start another run from its weights."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from flax_resnet.config.build import abstract_checkpoint, build_eval_step, build_model
from flax_resnet.config.conv_choice import Choice, choose_conv, computable, convolve
from flax_resnet.data.streaming import StreamedImages
from flax_resnet.engine.dispatch import CompiledSteps
from flax_resnet.engine.evaluate import Evaluation, Evaluator
from flax_resnet.engine.mesh import DataParallel
from flax_resnet.engine.state import TrainState
from flax_resnet.engine.steps import make_normalize, make_predict
from flax_resnet.engine.views import predict_views
from flax_resnet.process.compile_cache import compile_program
from flax_resnet.process.errors import UserError
from flax_resnet.runs.checkpoints import Checkpoints, Which
from flax_resnet.runs.folder import DataInfo, RunFolder

HEAD = "head"


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network, on all local devices. `flax_resnet.load` makes one.

    Attributes:
      config: its run's config.
      data: what its run knows of its data.
      variables: {'params', 'batch_stats'}.
      step: steps it was trained for.
      conv: what computed its run's convolutions on one CPU device, and does again if it can, so
        that an evaluation gives what the run's log has; None: chosen by the number of images.
    """

    config: ConfigDict
    data: DataInfo
    variables: Mapping[str, Any]
    step: int
    conv: Choice | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.data.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images it takes."""
        return self.data.image_shape

    def logits(
        self, images: np.ndarray | StreamedImages, views: str = "none"
    ) -> Float[np.ndarray, "n classes"]:
        """Logits of uint8 images [N, height, width, 3], batched by config.eval_batch_size.

        Args:
          images: the images.
          views: what to average the logits of, as config.test_views.

        Raises:
          UserError: the images are not uint8 or not of `image_shape`.

        Examples:
          >>> model.logits(np.zeros((3, 32, 32, 3), np.uint8)).shape
          (3, 10)
        """
        self._check(images)
        conv = self._conv_for(len(images))
        parts = [self._logits(batch, views, conv) for batch in self._batches(images)]
        none = np.zeros((0, len(self.class_names)), np.float32)
        return np.concatenate([none, *jax.device_get(parts)])[: len(images)]

    def probabilities(self, images: np.ndarray | StreamedImages) -> Float[np.ndarray, "n classes"]:
        """Softmax of the logits, in float32.

        Examples:
          >>> model.probabilities(np.zeros((1, 32, 32, 3), np.uint8)).sum().round(3)
          np.float32(1.0)
        """
        return np.asarray(jax.nn.softmax(self.logits(images)))

    def predict(self, images: np.ndarray | StreamedImages) -> Int[np.ndarray, " n"]:
        """The likeliest class of each image, an index into `class_names`.

        Examples:
          >>> model.class_names[3]
          '3'
          >>> model.predict(np.zeros((2, 32, 32, 3), np.uint8)).shape
          (2,)
        """
        return self.logits(images).argmax(-1)

    def evaluate(
        self, images: np.ndarray | StreamedImages, labels: np.ndarray, views: str = "none"
    ) -> Evaluation:
        """Mean loss and accuracy, NaN for no image; what the run's log has for the test images.

        Args:
          images: uint8 [N, height, width, 3].
          labels: integers [N], from 0 to the number of classes - 1.
          views: what to average the logits of, as config.test_views.

        Raises:
          UserError: images or labels do not fit.

        Examples:
          >>> model.evaluate(np.zeros((3, 32, 32, 3), np.uint8), np.array([0, 1, 2])).images
          3
        """
        self._check(images)
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or (labels.size and labels.dtype.kind not in "iu"):
            raise UserError(
                f"labels are {labels.dtype} {labels.shape}: they must be {len(images)} integers",
                field="labels",
            )
        if not labels.size:
            return Evaluation(math.nan, math.nan, 0)
        classes = len(self.class_names)
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"labels go from {labels.min()} to {labels.max()}: "
                f"they must be from 0 to {classes - 1}",
                field="labels",
            )
        evaluator = Evaluator(
            self._eval_steps(views, self._conv_for(len(images))),
            self._parallel,
            images,
            labels.astype(np.int32),
            self.config.eval_batch_size,
            self.config.steps_per_dispatch,
        )
        result = evaluator(self._placed_variables)
        assert result is not None  # nothing asked it to stop
        return result

    def _check(self, images: Any) -> None:
        kind = getattr(images, "dtype", type(images).__name__)
        shape = np.shape(images)
        if kind != np.uint8 or len(shape) != 4 or shape[1:] != self.image_shape:
            raise UserError(
                f"images are {kind} {shape}: they must be a uint8 array of shape "
                f"(N, {', '.join(map(str, self.image_shape))})",
                field="images",
            )

    def _batches(self, images: np.ndarray | StreamedImages) -> Iterator[jax.Array]:
        """Batches of one size on the devices, the last one padded; few images take a power of 2."""
        size = min(self.config.eval_batch_size, 1 << max(len(images) - 1, 0).bit_length())
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            if len(batch) < size:
                batch = np.concatenate(
                    [batch, np.zeros((size - len(batch), *self.image_shape), np.uint8)]
                )
            yield self._parallel.place(batch[None]).arrays[0]

    @functools.cached_property
    def _parallel(self) -> DataParallel:
        return DataParallel()

    @functools.cached_property
    def _placed_variables(self) -> Any:
        return jax.device_put(self.variables, self._parallel.replicated)

    @functools.cached_property
    def _compiled(self) -> dict[tuple[Any, ...], Any]:
        """The programs by batch size, if that is fixed, views and convolutions."""
        return {}

    def _conv_for(self, num_images: int) -> Choice:
        config, devices = self.config, self._parallel.devices
        recorded = self.conv if len(devices) == 1 else None
        if recorded is not None and computable(recorded, config.dtype, devices):
            return recorded
        if not computable(config.conv, config.dtype, devices):
            config = ConfigDict({**config, "conv": "auto"})
        # An evaluation is a third of a training step's work.
        return choose_conv(config, self.image_shape, num_images // 3, devices)

    def _eval_steps(self, views: str, conv: Choice) -> CompiledSteps:
        if (views, conv) not in self._compiled:
            classes = len(self.class_names)
            step = build_eval_step(self.config, classes, views, convolve(conv, evaluation=True))
            self._compiled[views, conv] = self._parallel.compile_eval(step)
        return self._compiled[views, conv]

    def _logits(self, images: jax.Array, views: str, conv: Choice) -> jax.Array:
        """Logits [B, classes] of placed images [1, B, height, width, 3]."""
        key = str(images.shape[1]), views, conv
        if key not in self._compiled:
            network = build_model(
                self.config, len(self.class_names), convolve(conv, evaluation=True)
            )
            predict = make_predict(network, make_normalize(self.config.mean, self.config.std))
            if views != "none":
                predict = predict_views(predict, views)
            program = jax.jit(lambda variables, images: predict(variables, images[0]))
            self._compiled[key] = compile_program(program.lower(self._placed_variables, images))
        return self._compiled[key](self._placed_variables, images)


def load(workdir: str | Path, checkpoint: Which = "last") -> Model:
    """The trained network of a run, from its last checkpoint or its best.

    Raises:
      UserError: there is no run, no checkpoint yet, or no best one.

    Examples:
      >>> model = load(workdir)
      >>> model.step, model.image_shape
      (14, (32, 32, 3))
    """
    return load_trained(workdir, checkpoint)


def load_trained(
    workdir: str | Path, which: Which = "last", sharding: jax.sharding.Sharding | None = None
) -> Model:
    """`load`, onto the devices of `sharding` (default: the first)."""
    run = RunFolder(workdir)
    config = run.config()
    if which == "best" and not config.validation_split:
        raise UserError(
            f"{workdir} has no best checkpoint: it was trained with config.validation_split=0; "
            "use the last",
            code="missing",
            field="--checkpoint",
        )
    data = run.data_info()
    state, _ = abstract_checkpoint(config, len(data.class_names), data.image_shape)
    if not run.checkpoints.is_dir():
        raise UserError(
            f"{workdir} has no checkpoint yet", code="missing", field=str(run.checkpoints)
        )
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with Checkpoints(run.checkpoints, keep_best=which == "best", read_only=True) as checkpoints:
        averages = {} if state.averages is None else {"averages": state.averages}
        found, step = checkpoints.restore_variables(averages or state.variables, sharding, which)
    arithmetic = run.arithmetic() if run.arithmetic_file.exists() else None
    on_a_cpu = arithmetic is not None and (arithmetic.platform, arithmetic.devices) == ("cpu", 1)
    conv = arithmetic.conv if arithmetic and on_a_cpu else None
    return Model(config, data, found["averages"] if averages else found, step, conv)


def start_from(state: TrainState, class_names: tuple[str, ...], trained: Model) -> TrainState:
    """A fresh state with another run's weights; the head stays fresh where the classes differ.

    Raises:
      UserError: the networks differ elsewhere.
    """
    keep_head = class_names == trained.data.class_names
    new: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(state.variables))
    old: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(trained.variables))
    for path in sorted(new.keys() | old.keys()):
        if path[1] == HEAD and not keep_head:
            continue
        shapes = [tree[path].shape if path in tree else None for tree in (old, new)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"config.init_from: {'/'.join(path)} is {shapes[0] or 'absent'} there and "
                f"{shapes[1] or 'absent'} here: both networks need the same design",
                code="conflict",
                field="config.init_from",
            )
        new[path] = old[path]
    variables = traverse_util.unflatten_dict(new)
    return dataclasses.replace(
        state,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        averages=None if state.averages is None else variables,
    )
