"""Every shipped configuration compiles, for GPUs that are not there, into tensor-core code that never spills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longformer.attention.fused import largest_head_dim

REPOSITORY = Path(__file__).resolve().parents[3]
# What a block may use: on sm_90, and on the smallest of compute capability 8 (sm_86, sm_89).
SHARED_MEMORY = {90: 227 * 1024, 80: 99 * 1024}
# What asks most of registers in calls that take these tiles.
FEATURES = {
    "plain": ("globals", "dilated"),
    "dropout": ("globals", "dilated", "dropout"),
    "relative": ("padding", "relative", "dilated", "dropout"),
}


def compiled(architecture: int, dtype: str, head_dim: int, *features: str) -> list[dict]:
    """Compile in a process of its own: here the kernels are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("offline.py")
    done = subprocess.run(
        [sys.executable, script, str(architecture), dtype, str(head_dim), *features],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(architecture: int, dtype: str, head_dim: int, *features: str) -> None:
    for kernel in compiled(architecture, dtype, head_dim, *features):
        assert kernel["spills"] == 0, kernel
        assert kernel["shared_memory"] <= SHARED_MEMORY[architecture], kernel
        # The last step of the global gradient only adds.
        assert kernel["tensor_core"] > 0 or kernel["kernel"] == "global_sum_kernel", kernel


def test_configuration_used_most_compiles_to_hopper_tensor_cores_without_spills() -> None:
    check(90, "bfloat16", 64)
    assert all(kernel["HGMMA"] > 0 for kernel in compiled(90, "bfloat16", 64))


@pytest.mark.slow
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_shipped_configuration_compiles_without_spills(
    architecture: int, dtype: str, head_dim: int, features: str
) -> None:
    if head_dim > largest_head_dim(getattr(torch, dtype), relative=features == "relative"):
        pytest.skip("refused by the engine")
    check(architecture, dtype, head_dim, *FEATURES[features])
