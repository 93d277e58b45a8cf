"""The paper's network and its 50 epochs, with a modern recipe.

    python train.py --config configs/best.py

On CIFAR-10 recompressed as JPEG at quality 75: 91.61% ± 0.12% test accuracy, with views
92.61% ± 0.03% (n = 3); the paper's recipe reaches 86.87%.
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns fast.py for 50 epochs, with crops of more places and a covered square."""
    config = airbench.paper_network()
    config.num_epochs = 50
    config.crop_padding = 4
    config.cutout = 8
    return config
