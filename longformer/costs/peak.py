"""Measures the peak arithmetic of a device, which model FLOPs utilisation (MFU) is relative to."""

import math
import time
from functools import cache

import torch

_PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}


@cache
def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the floating-point operations per second of a large matrix product, the best of a quarter second.

    Measured once per process, on as many threads as torch has; what a training step reaches of it is its MFU.
    """
    size = _PRODUCT_SIZES[device.type]
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    shortest = math.inf
    until = time.perf_counter() + 0.25
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * size**3 / shortest
