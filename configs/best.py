"""The paper's network and its 50 epochs, with the recipe of today.

    python train.py --config configs/best.py

Not measured yet; it aims at half of the paper's error, 95.4% test accuracy (original images).
"""

from ml_collections import ConfigDict

from flax_resnet.config import default_config


def get_config() -> ConfigDict:
    """Returns SGD with a linear decay, and what keeps 50 epochs from fitting the images alone."""
    config = default_config()
    config.optimizer = "nesterov"
    config.learning_rate = 0.1
    config.weight_decay = 5e-4
    config.decay = "kernels"
    config.schedule = "linear"
    config.warmup_epochs = 2
    config.std = (0.2470, 0.2435, 0.2616)
    config.pad_mode = "reflect"
    config.flip_mode = "alternating"
    config.cutout = 8
    config.label_smoothing = 0.1
    config.test_views = "mirror_shift"
    config.max_params = 5_000_000
    return config
