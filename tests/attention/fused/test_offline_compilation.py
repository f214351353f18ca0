"""Every shipped configuration compiles, for GPUs that are not there, into tensor-core code that never spills."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from longformer.attention.fused.limits import largest_head_dim
from longformer.attention.fused.tiles import choose_tiles

REPOSITORY = Path(__file__).resolve().parents[3]
# What a block may use: on sm_100 and sm_90, and on the smallest of compute capability 8 (sm_86, sm_89).
SHARED_MEMORY = {100: 227 * 1024, 90: 227 * 1024, 80: 99 * 1024}
# What asks most of registers in calls that take these tiles.
FEATURES = {
    "plain": "padding,globals,dilated",
    "dropout": "padding,globals,global_attention,dilated,dropout",
    "relative": "padding,relative,dilated,dropout",
}


def shipped_configurations() -> Iterator[str]:
    """Yield every entry of the tile table as an argument of the script; float16 shares the tiles of bfloat16."""
    from triton import __version__

    for architecture, dtype, head_dim, kind in product(SHARED_MEMORY, ("bfloat16", "float32"), (32, 64, 128), FEATURES):
        torch_dtype = getattr(torch, dtype)
        # For the others sm_100 has no tiles of its own.
        if architecture == 100 and (dtype, head_dim) != ("bfloat16", 64):
            continue
        if head_dim > largest_head_dim(torch_dtype, relative=kind == "relative"):
            continue
        tiles = {
            each: choose_tiles(architecture // 10, __version__, torch_dtype, head_dim, each)
            for each in ("plain", "dropout")
        }
        # The same tiles without dropout need less.
        if kind != "plain" or tiles["plain"] != tiles["dropout"]:
            yield f"{architecture},{dtype},{head_dim},{FEATURES[kind]}"


def compile_offline(configurations: list[str], cache: Path) -> list[dict]:
    """Compile in processes of their own, one per processor: here the kernels are interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # What an earlier run compiled proves nothing.
    environment["TRITON_CACHE_DIR"] = str(cache)
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    script = REPOSITORY / "benchmarks" / "fused_attention_offline.py"
    workers = min(os.cpu_count() or 1, len(configurations))
    running = [
        subprocess.Popen(
            [sys.executable, script, *configurations[worker::workers]],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for worker in range(workers)
    ]  # fmt: skip
    kernels = []
    for process in running:
        output, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        kernels += [json.loads(line) for line in output.splitlines()]
    assert {kernel["configuration"] for kernel in kernels} == set(configurations)
    return kernels


def faults(kernels: list[dict]) -> list[str]:
    """Say what is wrong with each kernel, if anything."""
    found = []
    for kernel in kernels:
        architecture = int(kernel["configuration"].split(",")[0])
        wrong = {
            "spills registers": kernel["stack"] > 0,
            "asks for too much shared memory": kernel["shared_memory"] > SHARED_MEMORY[architecture],
            # The last step of the global gradient only adds.
            "uses no tensor core": not kernel["mma"] + kernel["wgmma"] + kernel["tcgen05"]
            and kernel["kernel"] != "global_sum_kernel",
        }
        found += [f"{what}: {kernel}" for what, applies in wrong.items() if applies]
    return found


# Of a warp, in one round between the edges and in one with all that an edge asks for. A tile of 64 x 64 scores.
LIMITS = {
    "90,bfloat16,64": {"forward": (330, 470), "query_gradient": (285, 425), "key_gradient": (355, 495)},
    "90,bfloat16,64,packed": {"forward": (330, 470), "query_gradient": (285, 425), "key_gradient": (355, 495)},
    "90,bfloat16,64,globals": {"forward": (335, 660), "query_gradient": (295, 600), "key_gradient": (355, 495)},
    "90,bfloat16,64,padding,globals": {"forward": (335, 660), "query_gradient": (290, 600), "key_gradient": (370, 505)},
    "90,bfloat16,64,dropout": {"forward": (550, 690), "query_gradient": (555, 695), "key_gradient": (385, 460)},
}


# Useful operations in 1e12 a second that an H100 is predicted to reach with these kernels.
FORWARD_GOAL, BACKWARD_GOAL = 260, 270
# The share of its time that one global token adds to a forward pass.
GLOBAL_TOKEN_GOAL = 0.06


def test_a_gpu_without_tiles_of_its_own_gets_the_safe_ones_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = choose_tiles(9, "3.99.0", torch.bfloat16, 64, "plain")
    assert found == choose_tiles(8, "3.99.0", torch.bfloat16, 64, "plain")
    assert "with Triton 3.99.0" in caplog.text


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The kernels of all shipped configurations and of those used most."""
    # Besides the table: the other half precision, a width that is no power of two, and arguments that are 1, which
    # Triton compiles apart.
    others = [
        "90,float16,64,globals",
        "80,float16,64,globals",
        "90,bfloat16,80",
        "80,bfloat16,80",
        "90,bfloat16,64,ones",
        "90,bfloat16,64,packed,globals,global_attention,dilated",
        "80,bfloat16,64,packed,globals,global_attention,dropout",
    ]
    return compile_offline([*shipped_configurations(), *others, *LIMITS], tmp_path_factory.mktemp("compiled"))


@pytest.mark.slow
def test_every_shipped_configuration_compiles_to_tensor_cores_without_spills(compiled: list[dict]) -> None:
    assert faults(compiled) == []


@pytest.mark.slow
def test_configurations_used_most_issue_few_instructions_and_share_a_multiprocessor(
    compiled: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = [kernel for kernel in compiled if kernel["configuration"] in LIMITS]
    for kernel in kernels:
        name = kernel["kernel"].removesuffix("_kernel")
        if name not in LIMITS[kernel["configuration"]]:
            continue
        walk = kernel["loops"][0]
        middle, edge = LIMITS[kernel["configuration"]][name]
        assert walk["middle"] <= middle, kernel
        assert walk["edge"] <= edge, kernel
        assert kernel["programs"] >= 2, kernel
        assert kernel["wgmma"], kernel
        # Global keys, in a loop of their own, are loaded before the walk.
        assert walk["async_copies"], kernel
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    plain, with_global = (
        [kernel for kernel in kernels if kernel["configuration"] == each]
        for each in ("90,bfloat16,64", "90,bfloat16,64,globals")
    )
    prediction = importlib.import_module("cycle_model").predict(plain, with_global)
    assert prediction["forward"] >= FORWARD_GOAL, prediction
    assert prediction["backward"] >= BACKWARD_GOAL, prediction
    assert prediction["forward, one global token"] <= GLOBAL_TOKEN_GOAL, prediction
