"""Jordan's airbench95: 4,604,728 parameters, 15 epochs of SGD with Lookahead.

    python train.py --config configs/airbench95.py

Its author reports 95.01% test accuracy with test-time views (mean of 200 runs, original images).
Here, on CIFAR-10 recompressed as JPEG (q75): 91.13% ± 0.06%, with views 91.96% ± 0.09% (n = 3).
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns KellerJordan/cifar10-airbench's legacy/airbench95.py, from its commit f1c599c."""
    config = airbench.common("airbench95")
    config.num_epochs = 15
    airbench.sgd_and_lookahead(config, lr=10.0, weight_decay=0.0153)
    config.warmup_epochs = 0.23 * config.num_epochs
    config.schedule_end = 0.07
    return config
