"""Every hyperparameter once: its name, default, rule and meaning."""

import dataclasses
import unicodedata
from collections.abc import Callable
from typing import Any

from flax_resnet.engine.views import VIEWS
from flax_resnet.models.designs import MODELS
from flax_resnet.models.layers import ACTIVATIONS, KERNEL_INITS
from flax_resnet.optim.optimizers import OPTIMIZERS
from flax_resnet.optim.schedules import SCHEDULES

FORMAT = 5  # of a run's config.json; a file without a number is of format 1


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
      type: of the value, where it is not None.
      check: whether a value is allowed; it takes any object.
      words: the same for people, as in "it must be ...".
    """

    type: type
    check: Callable[[Any], bool]
    words: str

    def __call__(self, value: Any) -> bool:
        """Whether a value is allowed."""
        return bool(self.check(value))


def is_int(value: Any) -> bool:
    """Whether it is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def integer(low: int, high: int) -> Rule:
    """An integer within bounds, both included."""
    words = f"an integer from {low:,} to {high:,}"
    return Rule(int, lambda v: is_int(v) and low <= v <= high, words)


def odd(high: int) -> Rule:
    """An odd integer from 1 to `high`."""
    words = f"an odd integer, at most {high}"
    return Rule(int, lambda v: is_int(v) and 0 < v <= high and v % 2 == 1, words)


def number(low: float, high: float) -> Rule:
    """A number within bounds, both included; a NaN fails both comparisons."""
    words = f"a number from {low:g} to {high:g}"
    return Rule(float, lambda v: (is_int(v) or isinstance(v, float)) and low <= v <= high, words)


def choice(*names: str) -> Rule:
    """One of several names."""
    return Rule(str, lambda v: isinstance(v, str) and v in names, "one of " + ", ".join(names))


def text() -> Rule:
    """Text, such as a name or a path."""
    words = "non-empty text without control characters"
    return Rule(str, lambda v: isinstance(v, str) and _is_clean(v), words)


def _is_clean(value: str) -> bool:
    # Cc: control characters; a file name cannot hold a NUL, nor a line of a log a line break.
    # Cs: half a UTF-16 character, which no encoding has.
    return bool(value) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def flag() -> Rule:
    """True or False; 0 and 1 are neither."""
    return Rule(bool, lambda v: isinstance(v, bool), "True or False")


def optional(rule: Rule) -> Rule:
    """None, or what `rule` allows."""
    return Rule(rule.type, lambda v: v is None or rule(v), f"{rule.words}, or None")


def tuple_of(rule: Rule, words: str, shortest: int, longest: int) -> Rule:
    """A tuple (in JSON, a list) of items that `rule` allows."""

    def check(value: Any) -> bool:
        is_sequence = isinstance(value, tuple | list)
        return is_sequence and shortest <= len(value) <= longest and all(map(rule, value))

    return Rule(tuple, check, words)


# Numbers beyond these bounds are mistakes: float32 rounds them to 0 or infinity, int32 step counts
# overflow, or the network takes hours to build.
_MOST = 1_000_000  # images in a batch, epochs, steps
_IMAGES = integer(1, 2**31 - 1)
IMAGE_SIDE = integer(1, 8192)  # pixels; beyond any network's, yet a batch still fits in memory
_FRACTION = number(0.0, 0.999999)  # float32 has 24 bits: 0.99999999 would be 1
_RATE = number(1e-6, 1e6)  # a multiple of the learning rate
_MAX_STAGES = 16
MAX_BLOCKS = 1000  # He et al. 2016, section 4.2, stop at 600


def _stages(rule: Rule) -> Rule:
    words = f"a tuple of 1 to {_MAX_STAGES}, for each stage {rule.words}"
    return optional(tuple_of(rule, words, 1, _MAX_STAGES))


_SAME = object()


@dataclasses.dataclass(frozen=True)
class Field:
    """A hyperparameter.

    Attributes:
      name: dotted where it is in a group, as design.stem.
      default: the paper's value where the paper has one.
      rule: what its value may be.
      help: what it is, for people.
      section: heading under which it is listed.
      since: the FORMAT in which it appeared.
      absent: what it was before it existed, for older runs; left out: the default.
      free: it may differ when a run resumes, for it changes none of the run's numbers.
    """

    name: str
    default: Any
    rule: Rule
    help: str
    section: str = ""
    since: int = 1
    absent: Any = _SAME
    free: bool = False

    def __post_init__(self) -> None:
        if self.absent is _SAME:
            object.__setattr__(self, "absent", self.default)


_SECTIONS: dict[str, tuple[Field, ...]] = {
    "Network": (
        Field("model", "revised", choice(*MODELS), "named design; design.* change parts of it"),
        Field(
            "design.stage_sizes", None, _stages(integer(1, MAX_BLOCKS)),
            "B_i, blocks in stage i; this and the rest of design.*: None keeps the model's own",
        ),
        Field("design.stage_channels", None, _stages(integer(1, 16_384)), "C_i, channels"),
        Field("design.kernel_sizes", None, _stages(odd(63)), "F_i, kernel size in the blocks"),
        Field("design.shortcut_kernels", None, _stages(odd(63)), "K_i, kernel size of shortcuts"),
        Field(
            "design.pool_size", None, optional(integer(0, 8192)),
            "P, kernel of the last pool; 0: the whole map",
        ),
        Field(
            "design.block", None, optional(choice("basic", "bottleneck", "single")),
            "residual block: two convolutions, three, or one",
        ),
        Field(
            "design.shortcut", None, optional(choice("projection", "pad", "none")),
            "where shapes change: 1x1 projection, zero padding (He's option A); none: plain net",
        ),
        Field(
            "design.stem", None, optional(choice("cifar", "imagenet", "whiten")),
            "first layers: one 3x3 convolution; 7x7 of stride 2 and max pooling; or 2x2 filters "
            "that whiten the training images",
        ),
        Field(
            "design.bottleneck_stride", None, optional(choice("1x1", "3x3")),
            "which convolution of a bottleneck has the stride (the paper's Figure 3: 1x1)",
        ),
        Field(
            "design.squeeze_excitation", None, optional(choice("none", "stem", "blocks")),
            "squeeze-and-excitation once after the stem, or in every block", since=3,
        ),
        Field(
            "design.stochastic_depth", None, optional(_FRACTION),
            "probability that training leaves out the last block; less for earlier ones", since=3,
        ),
        Field(
            "design.zero_last_scale", None, optional(flag()),
            "start the scale of each block's last BatchNorm at 0", since=3,
        ),
        Field(
            "design.downsample", None, optional(choice("stride", "pool")),
            "what halves the image: a block's stride, or a pooled convolution before each stage",
            since=3,
        ),
        Field(
            "design.activation", None, optional(choice(*ACTIVATIONS)),
            "after BatchNorm and the addition", since=3,
        ),
        Field("design.norm_scale", None, optional(flag()), "BatchNorm has a scale", since=3),
        Field(
            "design.norm_momentum", None, optional(_FRACTION),
            "share of BatchNorm's running statistics that is kept (PyTorch's 0.1: 0.9)", since=3,
        ),
        Field(
            "design.norm_epsilon", None, optional(number(1e-30, 1.0)),
            "added to BatchNorm's variance", since=3,
        ),
        Field(
            "design.head_pool", None, optional(choice("average", "max")), "the last pool", since=3
        ),
        Field("design.head_bias", None, optional(flag()), "the linear layer has a bias", since=3),
        Field(
            "design.logit_scale", None, optional(number(1e-6, 1e6)), "multiplies the logits",
            since=3,
        ),
        Field(
            "weight_init", "pytorch", choice(*KERNEL_INITS),
            "initial kernels: PyTorch's uniform ones (the paper's), He's normal ones, or PyTorch's "
            "with the identity in the first filters",
        ),
        Field(
            "dtype", "float32", choice("float32", "bfloat16"),
            "of the computation; parameters stay float32",
        ),
        Field(
            "max_params", None, optional(integer(1, 2**63 - 1)),
            "refuse a network of more parameters; None: any", since=3, free=True,
        ),
        Field(
            "batch_norm", "global", choice("global", "device", "group"),
            "BatchNorm statistics over the whole batch, per device, or per group of devices",
        ),
        Field(
            "batch_norm_devices", 8, integer(1, _MOST),
            "for batch_norm=group: devices in a group", since=3,
        ),
        Field(
            "init_from", None, optional(text()),
            "workdir of a run whose last weights to start from",
        ),
    ),
    "Data": (
        Field("dataset", "cifar10", text(), "a tfds name, digits, an .npz file, or a folder"),
        Field(
            "data_dir", None, optional(text()),
            "where tfds keeps its data; None: TFDS_DATA_DIR, else its own folder", free=True,
        ),
        Field(
            "archive", None, optional(text()),
            "a downloaded cifar-10-binary.tar.gz to read in place of tfds", free=True,
        ),
        Field(
            "image_size", None, optional(IMAGE_SIDE),
            "side in pixels to resize to; None: the images' own size",
        ),
        Field("train_images", None, optional(_IMAGES), "first N training images; None: all"),
        Field("test_images", None, optional(_IMAGES), "first N test images; None: all"),
        Field(
            "validation_split", 0, integer(0, 2**31 - 1),
            "training images held out for validation and the best checkpoint; 0: none",
        ),
        Field(
            "mean", (0.4914, 0.4822, 0.4465),
            tuple_of(
                number(-1000.0, 1000.0), "three numbers from -1000 to 1000, one per channel", 3, 3
            ),
            "per channel, subtracted from images in [0, 1]",
        ),
        Field(
            "std", (0.2023, 0.1994, 0.2010),
            tuple_of(
                number(1e-6, 1000.0), "three numbers from 1e-06 to 1000, one per channel", 3, 3
            ),
            "per channel, divides what mean leaves",
        ),
        Field(
            "crop_padding", 4, integer(0, 1024),
            "zero pixels on each side before a random crop of the original size; 0: no crop",
        ),
        Field(
            "pad_mode", "zeros", choice("zeros", "reflect"),
            "what the crop's padding holds: zeros, or the image mirrored at its edge", since=3,
        ),
        Field(
            "resized_crop", None, optional(number(0.01, 1.0)),
            "random crops of at least this share of the area, resized (ImageNet: 0.08); None: none",
            since=4,
        ),
        Field("flip", True, flag(), "mirror half of the training images left to right, at random"),
        Field(
            "flip_mode", "random", choice("random", "alternating"),
            "mirror at random, or each image in every other epoch", since=3,
        ),
        Field(
            "color_jitter", (0.0, 0.0, 0.0),
            tuple_of(
                number(0.0, 1.0),
                "three numbers from 0 to 1, for brightness, contrast and saturation", 3, 3,
            ),
            "multiplies brightness, contrast and saturation by random factors, 1 +- these", since=3,
        ),
        Field(
            "trivial_augment", False, flag(),
            "one random operation of TrivialAugment's wide set on each training image", since=3,
        ),
        Field(
            "cutout", 0, integer(0, 8192),
            "side in pixels of a square covered in each training image; 0: none", since=3,
        ),
        Field(
            "eval_crop", 1.0, number(0.1, 1.0),
            "share of height and width in the middle that is evaluated (ImageNet: 0.875)", since=4,
        ),
        Field(
            "data_loading", "auto", choice("auto", "memory", "stream"),
            "images in memory or read from disk as needed; auto: in memory if half of it is enough",
            since=4,
        ),
        Field(
            "image_decoder", "pillow", choice("pillow", "native"),
            "of streamed images and resized crops; native: simplejpeg and OpenCV, faster", since=4,
        ),
        Field("batch_size", 128, integer(1, _MOST), "images per step, over all devices"),
        Field(
            "drop_last", False, flag(),
            "leave out an epoch's last, short batch (the paper keeps it)",
        ),
        Field(
            "test_views", "none", choice("none", *VIEWS),
            "test-time augmentation; its accuracy is logged after the last epoch", since=3,
        ),
        Field(
            "eval_batch_size", 500, integer(1, _MOST),
            "images per evaluation step; the metrics round differently", free=True,
        ),
    ),
    "Optimization": (
        Field("num_epochs", 50, integer(1, _MOST), "passes over the training images"),
        Field("seed", 0, integer(0, 2**32 - 1), "of weights, data order and augmentation"),
        Field("optimizer", "adam", choice(*OPTIMIZERS), "update rule"),
        Field("learning_rate", 1e-3, number(1e-12, 1000.0), "the schedule's peak"),
        Field(
            "learning_rate_scaling", "none", choice("none", "linear", "sqrt"),
            "multiplies it by batch_size / tuned_batch_size, or by the square root of that",
            since=3,
        ),
        Field(
            "tuned_batch_size", None, optional(integer(1, _MOST)),
            "batch that the recipe was tuned for; None: that of the config file", since=3,
        ),
        Field("schedule", "constant", choice(*SCHEDULES), "learning rate over the run"),
        Field(
            "warmup_epochs", 0.0, number(0.0, 1e6),
            "linear warmup from 0; for one_cycle, its climb (0: 30% of the run)",
        ),
        Field(
            "step_boundaries", (0.5, 0.75),
            tuple_of(
                number(1e-6, 0.999999),
                "a tuple of 1 to 100 fractions of the run, between 0 and 1", 1, 100,
            ),
            "for step: drops at these fractions of the run",
        ),
        Field("step_factor", 0.1, number(1e-6, 1.0), "for step: multiplies the rate at each drop"),
        Field(
            "schedule_start", 0.0, number(0.0, 1.0),
            "what warmup climbs from, a fraction of the learning rate", since=3,
        ),
        Field(
            "schedule_end", 0.0, number(0.0, 1.0),
            "for linear: the last rate, a fraction of the learning rate", since=3,
        ),
        Field(
            "momentum", 0.9, _FRACTION, "for momentum and nesterov; for muon of all but filters"
        ),
        Field("muon_momentum", 0.6, _FRACTION, "for muon: of the filters", since=3),
        Field("beta1", 0.9, _FRACTION, "for adam and adamw: decay of the mean gradient"),
        Field("beta2", 0.999, _FRACTION, "for adam and adamw: decay of the mean squared gradient"),
        Field(
            "epsilon", 1e-8, number(1e-30, 1000.0), "for adam and adamw: added to the denominator"
        ),
        Field(
            "weight_decay", 0.0, number(0.0, 1000.0),
            "L2 in the gradient; decoupled for adamw; not for adam, nor for muon's filters",
        ),
        Field("decay", "all", choice("all", "kernels"), "parameters that weight_decay acts on"),
        Field(
            "norm_bias_rate", 1.0, _RATE,
            "multiplies the learning rate of BatchNorm's biases, and not their decay", since=3,
        ),
        Field("head_rate", 1.0, _RATE, "the same for the linear layer", since=3),
        Field("stem_bias_rate", 1.0, _RATE, "the same for the bias of stem=whiten", since=3),
        Field(
            "stem_bias_epochs", None, optional(number(0.0, 1e6)),
            "for stem=whiten: epochs that its bias is trained for; None: all", since=3,
        ),
        Field(
            "freeze", (),
            tuple_of(text(), "a tuple of at most 100 names, such as ('stem', 'stage1')", 0, 100),
            "parameters that stay as they are, by how their names begin", since=3,
        ),
        Field(
            "clip_value", None, optional(number(1e-9, 1e9)),
            "largest absolute value of a gradient's element; None: any", since=3,
        ),
        Field(
            "clip_norm", None, optional(number(1e-9, 1e9)),
            "largest norm of the whole gradient; None: any", since=3,
        ),
        Field(
            "sam_rho", 0.0, number(0.0, 100.0),
            "sharpness-aware minimization: distance to the weights with the gradient; 0: none",
            since=5,
        ),
        Field(
            "micro_batches", 1, integer(1, _MOST),
            "parts in which a batch is computed, for want of memory; BatchNorm sees each alone",
            since=3,
        ),
        Field(
            "label_smoothing", 0.0, number(0.0, 0.999),
            "share of the label that is spread over all classes", since=3,
        ),
        Field(
            "mixup", 0.0, number(0.0, 100.0),
            "alpha of the shares in which two images are mixed; 0: none", since=3,
        ),
        Field(
            "cutmix", 0.0, number(0.0, 100.0),
            "alpha of the areas pasted from another image; 0: none", since=3,
        ),
        Field(
            "ema_decay", 0.0, _FRACTION,
            "of a moving average of all weights, which is then evaluated; 0: none", since=3,
        ),
        Field(
            "lookahead_steps", 0, integer(0, _MOST),
            "Lookahead: steps after which slow weights follow and are gone on from; 0: none",
            since=3,
        ),
        Field(
            "lookahead_decay", 0.5, _FRACTION,
            "for lookahead: share of the old slow weights that is kept, at the run's end", since=3,
        ),
        Field(
            "lookahead_power", 0.0, number(0.0, 100.0),
            "for lookahead: the decay climbs as this power of the share of the run; 0: constant",
            since=3,
        ),
        Field(
            "lookahead_statistics", True, flag(),
            "for lookahead: BatchNorm's statistics are slow, too", since=3,
        ),
        Field(
            "on_nan", "stop", choice("stop", "skip"),
            "at a loss or gradient that is not finite: stop, or skip the step",
            free=True,  # decides how a stopped run continues
        ),
    ),
    "Machine": (
        Field(
            "conv", "auto", choice("auto", "native", "winograd", "onednn", "onednn+winograd"),
            "convolutions: XLA's own, or for a CPU oneDNN's, Winograd's (slow to compile) or both; "
            "auto: on one CPU device the fastest of each, timed once, else XLA's",
        ),
        Field("parallel", "jit", choice("jit", "pmap"), "how steps compile for several devices"),
        Field(
            "distributed", "off", choice("off", "auto"),
            "auto: one of several processes, found by SLURM, Open MPI, Kubernetes or Cloud TPU",
            since=3, free=True,
        ),
        Field(
            "deterministic", False, flag(),
            "the same bits in every run on a GPU too, at a cost in speed",
        ),
        Field(
            "steps_per_dispatch", None, optional(integer(1, _MOST)),
            "steps compiled as one; None: 1 on a CPU, more elsewhere",
        ),
        Field(
            "checkpoint_every_minutes", 10.0, number(1e-9, 100_000.0), "besides every epoch",
            free=True,
        ),
        Field(
            "checkpoint_every_steps", None, optional(integer(1, 2**31 - 1)),
            "besides; None: not by steps", free=True,
        ),
        Field(
            "reference_log", None, optional(text()),
            "a run to draw in the plots: paper, or a CSV file like it", free=True,
        ),
    ),
}  # fmt: skip

FIELDS: dict[str, Field] = {
    field.name: dataclasses.replace(field, section=section)
    for section, fields in _SECTIONS.items()
    for field in fields
}


def describe_fields() -> str:
    """Every field by section: name, default, what it may be and what it is."""
    lines, section = [], None
    for field in FIELDS.values():
        if field.section != section:
            section = field.section
            lines += ["", section]
        lines += [
            f"  {field.name} = {field.default!r}",
            f"      {field.help}",
            f"      {field.rule.words}",
        ]
    return "\n".join(lines[1:]) + "\n"
