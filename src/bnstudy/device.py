"""Where and how a stage computes: everything that `runtime` in params.yaml says, applied once a process."""

import ctypes
import os
import sys

import torch

from bnstudy.params import BadInput, Runtime


def prepare(runtime: Runtime) -> torch.device:
    """Set threads, determinism and memory use, and return the device. Raises `BadInput` if it is not there."""
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    device = find(runtime.device)
    if device.type == "cuda":
        # cuBLAS reads this when it starts, before which no matrix product may run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if runtime.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(runtime.memory_fraction, device)
    elif device.type == "mps" and runtime.memory_fraction is not None:
        torch.mps.set_per_process_memory_fraction(runtime.memory_fraction)
    elif device.type == "cpu":
        keep_freed_memory()
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.benchmark = not runtime.deterministic
    return device


def find(name: str) -> torch.device:
    cuda, mps = torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        raise BadInput(f"runtime.device: {name} is not there: PyTorch {torch.__version__} sees {cuda} CUDA devices")
    if device.type == "mps" and not mps:
        raise BadInput("runtime.device: mps is not there")
    return device


def keep_freed_memory() -> None:
    """Tell glibc to keep what tensors free: page faults, not arithmetic, are a third of a training step otherwise."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(ctypes.c_int(-4), ctypes.c_int(0))  # M_MMAP_MAX: no mapping of its own for a large tensor
            libc.mallopt(ctypes.c_int(-1), ctypes.c_int(2**31 - 1))  # M_TRIM_THRESHOLD: nothing goes back
