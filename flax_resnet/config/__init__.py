"""The config: its fields, loading, and what it names."""

from flax_resnet.config.load import default_config, find_config, load_config

__all__ = ["default_config", "find_config", "load_config"]
