"""Trains a network: python train.py --config configs/revised.py [--config.FIELD=VALUE ...].

The same as `flax_resnet train`.
"""

import sys

from flax_resnet.__main__ import main
from flax_resnet.process.console import leave

if __name__ == "__main__":
    leave(main(["train", *sys.argv[1:]]))
