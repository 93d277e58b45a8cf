"""Trains a network: python train.py --config configs/revised.py [--config.FIELD=VALUE ...].

Run again, the same command resumes where the run stopped. Exit codes: 0 finished, 2 bad config or
input, 130 and 143 saved after Ctrl-C and SIGTERM.
"""

import sys

from flax_resnet.__main__ import console

if __name__ == "__main__":
    console(["train", *sys.argv[1:]])
