"""Where and how a stage computes: what `runtime` in params.yaml says, applied once per process, and its record."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch

from bnstudy import BadInput
from bnstudy.engine import fast_cpu

if TYPE_CHECKING:
    from bnstudy.params import Runtime


def prepare(runtime: "Runtime") -> torch.device:
    """Set threads, determinism and memory use, and return the device. Raises `BadInput` if it is not there."""
    if isinstance(runtime.threads, int):
        torch.set_num_threads(runtime.threads)
    device = find(runtime.device)
    if device.type == "cuda":
        # cuBLAS reads this when it starts, before which no matrix product may run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if runtime.memory_fraction < 1:
            torch.cuda.set_per_process_memory_fraction(runtime.memory_fraction, device)
    elif device.type == "mps" and runtime.memory_fraction < 1:
        torch.mps.set_per_process_memory_fraction(runtime.memory_fraction)
    elif device.type == "cpu":
        keep_freed_memory()
        fast_cpu.use_threads(torch.get_num_threads())
    # Not torch.use_deterministic_algorithms, which imports a compiler: a second.
    torch.set_deterministic_debug_mode("error" if runtime.deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # 5 % of a step
    torch.backends.cudnn.benchmark = not runtime.deterministic
    return device


def find(name: str) -> torch.device:
    cuda, mps = torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and int(name.partition(":")[2] or 0) >= cuda:  # PyTorch's own index wraps: cuda:256 is 0
        raise BadInput(f"runtime.device: {name} is not there: PyTorch {torch.__version__} sees {cuda} CUDA devices")
    if device.type == "mps" and not mps:
        raise BadInput("runtime.device: mps is not there")
    return device


def environment(device: torch.device) -> dict[str, str | int | bool | None]:
    """What the bits of a run on `device` depend on beside its parameters, data and code; `prepare` has set it up.

    No more than that, since it stands in each model: what changes no bit must not change a model's bytes.
    """
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": version("llvmlite"),
        "machine": platform.machine(),
        "processor": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),  # they share a sum out, and float32 sums depend on the order
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def processor() -> str:
    """The processor's name, with its family and model: clouds give several of them one name, such as AMD EPYC."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if "model name" in said:
            numbers = [f"{key[4:]} {said[key]}" for key in ("cpu family",) if key in said]
            numbers += [f"model {said['model']}"] if "model" in said else []
            return " ".join([said["model name"], *numbers])
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Tell glibc to keep what tensors free: page faults, not arithmetic, are a third of a training step otherwise."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(ctypes.c_int(-4), ctypes.c_int(0))  # M_MMAP_MAX: no mapping of its own for a large tensor
            libc.mallopt(ctypes.c_int(-1), ctypes.c_int(2**31 - 1))  # M_TRIM_THRESHOLD: nothing goes back
