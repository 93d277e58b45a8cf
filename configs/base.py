"""Every field's default, the paper's value where the paper has one.

The fields are in flax_resnet/config/fields.py; this prints them all:

    python train.py --help-config
"""

from ml_collections import ConfigDict

from flax_resnet.config import default_config


def get_config() -> ConfigDict:
    """Returns the default configuration."""
    return default_config()
