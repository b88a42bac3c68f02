"""What fixes the bits of a run: the only code that trainings depend on, beside their script.

data, network (with fast_cpu) and training are the loop; history and averages are its hooks, checkpoint saves it, run is
what surrounds it; rows and models are what it leaves; schedule says when it is evaluated.
Outside of this folder it uses only `bnstudy.files`, `bnstudy.progress` and `bnstudy.BadInput`, none of which can change
a bit. The scripts also use `bnstudy.params` and `bnstudy.study.params`, which turn the parameters into an `Arm`.
"""

import os

# Read when PyTorch and Numba are imported, so before that. PyTorch's idle threads would spin, and keep the cores from
# Numba's: 5 % of a step on two.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Each of these changes bits, unseen by `device.environment`: other instructions, other roundings.
BIT_CHANGING = (
    *("ONEDNN_", "DNNL_", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ATEN_CPU_CAPABILITY"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NUMBA_"),
)
HARMLESS = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")
for name in list(os.environ):
    if name.startswith(BIT_CHANGING) and name not in HARMLESS:
        del os.environ[name]
