"""ResNets in JAX/Flax: train a network, load it, use it.

`import flax_resnet` is fast: JAX is imported when one of the names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_resnet.config.load import load_config
    from flax_resnet.inference.model import Model, load
    from flax_resnet.training.loop import train_and_evaluate as train

__version__ = "0.2.0"
__all__ = ["Model", "__version__", "load", "load_config", "train"]

_LAZY = {
    "Model": ("inference.model", "Model"),
    "load": ("inference.model", "load"),
    "load_config": ("config.load", "load_config"),
    "train": ("training.loop", "train_and_evaluate"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _LAZY.keys())
