"""GPUs by name: memory and peak speed, from the makers' data sheets (dense tensor cores, no sparsity)."""

from dataclasses import dataclass

from longformer.costs.memory import Precision
from longformer.errors import LongformerError


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    memory: int
    """Bytes."""
    peak_flops: dict[Precision, float]
    """Per second in each precision that it has; fp32 without TF32, which PyTorch leaves off."""


GPUS = {
    "v100": Gpu("V100 32 GB", 32 * 10**9, {"fp16": 125e12, "fp32": 15.7e12}),
    "a100-40": Gpu("A100 40 GB", 40 * 10**9, {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    "a100": Gpu("A100 80 GB", 80 * 10**9, {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    "l40s": Gpu("L40S 48 GB", 48 * 10**9, {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12}),
    "h100": Gpu("H100 SXM 80 GB", 80 * 10**9, {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}),
    "h200": Gpu("H200 141 GB", 141 * 10**9, {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}),
}


def gpu_of(name: str, precision: Precision) -> Gpu:
    """Returns a GPU that computes in a precision.

    Raises:
        LongformerError: it is not known, or does not.
    """
    if name.lower() not in GPUS:
        raise LongformerError(f"--gpu {name} is not known; known are {', '.join(GPUS)}")
    gpu = GPUS[name.lower()]
    if precision not in gpu.peak_flops:
        raise LongformerError(
            f"{gpu.name} does not compute in {precision}; choose training.precision={next(iter(gpu.peak_flops))}"
        )
    return gpu
