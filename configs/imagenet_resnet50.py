"""ResNet-50 for ImageNet (the paper's Figure 3), He et al.'s recipe, 90 epochs.

    python -m flax_resnet summary --config configs/imagenet_resnet50.py

Streams what does not fit in memory: imagenet2012 as tfds prepares it, or --config.dataset=FOLDER.
"""

from ml_collections import ConfigDict

from flax_resnet.config import he


def get_config() -> ConfigDict:
    """Returns He's ImageNet recipe for ResNet-50."""
    return he.imagenet("imagenet_resnet50")
