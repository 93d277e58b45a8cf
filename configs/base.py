"""Every field once, with the paper's value where the paper has one.

A config file starts from this one and changes what differs; on the command line a field is
changed as in --config.batch_size=256. The checks behind the ranges are in flax_resnet/config.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the default configuration."""
    config = ConfigDict()

    # The network.
    config.model = "revised"  # a named design (flax_resnet/models.py); `design` changes parts of it
    config.design = ConfigDict()  # each None: as in the named design
    config.design.stage_sizes = placeholder(tuple)  # B_i, blocks in residual layer i
    config.design.stage_channels = placeholder(tuple)  # C_i, channels of layer i
    config.design.kernel_sizes = placeholder(tuple)  # F_i, kernel of the blocks, odd
    config.design.shortcut_kernels = placeholder(tuple)  # K_i, kernel of the shortcut, odd
    config.design.pool_size = placeholder(int)  # P, average-pool kernel; 0: the whole map
    config.design.block = placeholder(str)  # basic, bottleneck
    config.design.shortcut = placeholder(str)  # projection, pad (He's option A), none (plain net)
    config.design.stem = placeholder(str)  # cifar (3x3), imagenet (7x7 stride 2, max pool)
    config.design.bottleneck_stride = placeholder(str)  # 1x1 (Figure 3's), 3x3
    config.weight_init = "pytorch"  # pytorch (uniform, the paper's), he_normal
    config.dtype = "float32"  # of the computation: float32, bfloat16; parameters stay float32
    config.batch_norm = "global"  # statistics over the whole batch (global) or per device (device)
    config.init_from = placeholder(str)  # workdir of a run whose last weights to start from

    # The data.
    config.dataset = "cifar10"  # a tfds name, digits, a .npz file, or a folder of class folders
    config.data_dir = placeholder(str)  # where tfds keeps its sets; None: TFDS_DATA_DIR or its own
    config.archive = placeholder(str)  # cifar-10-binary.tar.gz brought by hand, instead of tfds
    config.image_size = placeholder(int)  # side in pixels to resize to; None: the images' own
    config.train_images = placeholder(int)  # use only the first N training images; None: all
    config.test_images = placeholder(int)  # use only the first N test images; None: all
    config.validation_split = 0  # training images held out for validation (and `best`); 0: none
    config.mean = (0.4914, 0.4822, 0.4465)  # subtracted from images in [0, 1], per channel
    config.std = (0.2023, 0.1994, 0.2010)  # and divided by; both the paper's
    config.crop_padding = 4  # zero pixels a side before a random crop of the old size; 0: no crop
    config.flip = True  # mirror half of the images left to right, at random
    config.batch_size = 128  # images a step, over all devices
    config.drop_last = False  # leave out an epoch's last short batch (the paper keeps it)
    config.eval_batch_size = 500  # images a step of evaluation; changes no figure

    # The optimisation.
    config.num_epochs = 50  # passes over the training images
    config.seed = 0  # of weights, order and augmentation
    config.optimizer = "adam"  # adam, adamw, sgd, momentum, nesterov
    config.learning_rate = 1e-3  # the schedule's highest
    config.schedule = "constant"  # constant, step, cosine, one_cycle
    config.warmup_epochs = 0.0  # linear climb from 0; of one_cycle: its climb (0: 30% of the run)
    config.step_boundaries = (0.5, 0.75)  # of step: drops at these fractions of the run
    config.step_factor = 0.1  # of step: learning rate times this at each drop
    config.momentum = 0.9  # of momentum and nesterov
    config.beta1 = 0.9  # of adam and adamw: decay of the mean of gradients
    config.beta2 = 0.999  # of adam and adamw: decay of the mean of squared gradients
    config.epsilon = 1e-8  # of adam and adamw: added to the denominator
    config.weight_decay = 0.0  # L2 in the gradient; of adamw: decoupled; adam has none
    config.decay = "all"  # what weight_decay acts on: all parameters, or kernels alone

    config.on_nan = "stop"  # loss or gradient not finite: stop, or skip the step and go on

    # The machine.
    config.conv = "auto"  # convolutions: native (XLA's), winograd (fast on a CPU, slow to compile)
    config.parallel = "jit"  # how the step is compiled for all local devices: jit, pmap
    config.deterministic = False  # the same bits in every run on a GPU too, at a cost in speed
    config.steps_per_dispatch = placeholder(int)  # compiled as one; None: 1 on a CPU, else many
    config.checkpoint_every_minutes = 10.0  # besides every epoch
    config.checkpoint_every_steps = placeholder(int)  # besides; None: not by steps
    config.reference_log = placeholder(str)  # a run drawn in the plots: 'paper', or a CSV like it

    return config.lock()
