"""For a CPU: airbench94 with narrower stages, to the paper's level of accuracy.

    python train.py --config configs/laptop.py

On CIFAR-10 recompressed as JPEG at quality 75: 87.25% test accuracy, with views 88.41% (n = 1), in
5 min 51 s from command to end, on two cores of an AMD EPYC (Zen 5), in bfloat16. The paper's recipe
reaches 86.87% in 50 epochs, which would take 3.5 hours there. In float32, for processors without
bfloat16 units (--config.dtype=float32): 87.00% and 88.25% in 10 min 27 s.
"""

from ml_collections import ConfigDict

from flax_resnet.config import airbench


def get_config() -> ConfigDict:
    """Returns airbench94 with 0.37 of its multiply-adds, for 6 epochs."""
    config = airbench.muon("airbench94")
    config.num_epochs = 6
    config.dtype = "bfloat16"
    config.design.stage_channels = (32, 128, 256)
    config.stem_bias_epochs = 2
    return config
