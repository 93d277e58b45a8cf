"""The parts that all of Jordan's recipes share (arXiv 2404.00498, KellerJordan/cifar10-airbench).

Their programs sum the loss over the batch. Here it is the mean, so that each rate of theirs is
multiplied by the batch size, and each weight decay divided by it.
"""

from ml_collections import ConfigDict

from flax_resnet.config.load import default_config

MOMENTUM = 0.85


def common(model: str) -> ConfigDict:
    """Network, images, labels, weight decay of everything; no rates."""
    config = default_config()
    config.model = model
    config.max_params = 5_000_000
    config.weight_init = "dirac"
    config.std = (0.2470, 0.2435, 0.2616)
    config.crop_padding = 2
    config.pad_mode = "reflect"
    config.flip_mode = "alternating"
    config.drop_last = True
    config.label_smoothing = 0.2
    config.momentum = MOMENTUM
    config.schedule = "linear"
    config.test_views = "mirror_shift"
    return config


def muon(model: str) -> ConfigDict:
    """airbench94_muon: Muon for the filters, SGD for the rest."""
    config = common(model)
    config.num_epochs = 8
    config.batch_size = 2000
    config.optimizer = "muon"
    config.learning_rate = 0.24
    config.muon_momentum = 0.6
    bias_lr, head_lr = 0.053 * config.batch_size, 0.67 * config.batch_size
    head_lr /= 3 * 256  # our initial head is smaller by the root of this, and logit_scale larger
    config.norm_bias_rate = config.stem_bias_rate = bias_lr / config.learning_rate
    config.stem_bias_epochs = 3
    config.head_rate = head_lr / config.learning_rate
    config.weight_decay = 2e-6 * config.batch_size / config.learning_rate
    return config


def paper_network() -> ConfigDict:
    """airbench94_muon's way to train, for the paper's network.

    The learning rate is the best of 0.12, 0.24 and 0.5 on held-out images.
    """
    config = common("revised")
    config.batch_size = 1000
    config.warmup_epochs = 1
    config.schedule_start = 0.2
    config.optimizer = "muon"
    config.learning_rate = 0.12
    config.weight_decay = 5e-4
    config.norm_bias_rate = 8
    return config


def sgd_and_lookahead(config: ConfigDict, lr: float, weight_decay: float) -> None:
    """The optimizer of airbench95 and airbench96.

    Args:
      config: changed.
      lr: their learning rate for 1,024 images, independent of the momentum.
      weight_decay: theirs, independent of the learning rate.
    """
    # How much longer the steps of Nesterov's momentum are than the gradients that make them.
    scale = 1 + 1 / (1 - MOMENTUM)
    config.optimizer = "nesterov"
    config.batch_size = 1024
    config.learning_rate = lr / scale
    config.weight_decay = weight_decay / lr
    config.norm_bias_rate = 64
    config.stem_bias_epochs = 3
    config.schedule_start = 0.2
    config.lookahead_steps = 5
    config.lookahead_decay = 0.95**5
    config.lookahead_power = 3
