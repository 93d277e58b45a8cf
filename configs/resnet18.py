"""ResNet-18 with the CIFAR stem (the paper's Figure 4(b), 11,173,962 parameters), its recipe.

python train.py --config configs/resnet18.py
"""

from ml_collections import ConfigDict

from flax_resnet.config import default_config


def get_config() -> ConfigDict:
    """Returns the paper's recipe for ResNet-18."""
    config = default_config()
    config.model = "resnet18"
    return config
