"""A reproducible study of batch normalization on MNIST: one module per DVC stage over a few shared ones."""

import signal
import sys

if sys.argv[0] == "-m":  # python -m bnstudy.train: Ctrl-C ends the seconds of its imports without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
