"""For a CPU: airbench94 with narrower stages, to the paper's level of accuracy.

    python train.py --config configs/laptop.py

Not measured yet.
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns airbench94 with 0.37 of its multiply-adds, for 6 epochs."""
    config = airbench.muon("airbench94")
    config.num_epochs = 6
    config.design.stage_channels = (32, 128, 256)
    config.stem_bias_epochs = 2
    return config
