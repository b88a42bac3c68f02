"""A reproducible study of batch normalization on MNIST: one module per DVC stage over a few shared ones."""

import os
import signal
import sys

# Read when PyTorch is imported. Its idle threads would spin, and keep the cores from Numba's: 5 % of a step on two.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if sys.argv[0] == "-m":  # python -m bnstudy.train: Ctrl-C ends the seconds of its imports without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
