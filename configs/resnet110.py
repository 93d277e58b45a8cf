"""He's ResNet-110 for CIFAR-10 (parameter-free shortcuts), his recipe of 164 epochs.

python train.py --config configs/resnet110.py
"""

from ml_collections import ConfigDict

from flax_resnet.config import he


def get_config() -> ConfigDict:
    """Returns He's CIFAR recipe for ResNet-110."""
    config = he.cifar("resnet110")
    config.warmup_epochs = 1.0  # He starts at 0.01 until the training error is below 80%
    return config
