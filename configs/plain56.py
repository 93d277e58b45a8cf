"""He's plain-56 for CIFAR-10 (no shortcuts), his recipe of 164 epochs.

python train.py --config configs/plain56.py
"""

from ml_collections import ConfigDict

from flax_resnet.config import he


def get_config() -> ConfigDict:
    """Returns He's CIFAR recipe for plain-56."""
    return he.cifar("plain56")
