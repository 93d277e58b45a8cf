"""He's ResNet-32 for CIFAR-10 (parameter-free shortcuts), his recipe of 164 epochs.

python train.py --config configs/resnet32.py
"""

from ml_collections import ConfigDict

from flax_resnet.config import he


def get_config() -> ConfigDict:
    """Returns He's CIFAR recipe for ResNet-32."""
    return he.cifar("resnet32")
