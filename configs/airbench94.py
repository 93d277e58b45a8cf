"""Jordan's airbench94_muon: 1,971,640 parameters, 8 epochs, filters stepped by Muon.

    python train.py --config configs/airbench94.py

Its author reports 94.01% test accuracy with test-time views (mean of 200 runs, original images).
Here, on CIFAR-10 recompressed as JPEG (q75): 89.81% ± 0.31%, with views 90.80% ± 0.11% (n = 5).
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns KellerJordan/cifar10-airbench's airbench94_muon.py, from its commit f1c599c.

    One difference: in its 3 epochs, the whitening bias follows the run's learning rate; theirs
    falls to 0.
    """
    return airbench.muon("airbench94")
