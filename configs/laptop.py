"""For a CPU: airbench94 with narrower stages, to the paper's level of accuracy.

    python train.py --config configs/laptop.py

On CIFAR-10 recompressed as JPEG at quality 75: 87.15% ± 0.17% test accuracy, with views
88.13% ± 0.22% (n = 3), in 10 min 27 s from command to end on two cores of an AMD EPYC (Zen 5), in
16 min 22 s on two of Zen 3. The paper's recipe reaches 86.87% in 50 epochs, which would take 4.3
and 9.3 hours there. With --config.dtype=bfloat16, for processors
that compute in it (AVX-512 BF16): 87.25% and 88.41% in 5 min 51 s; on others that is slower.
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
