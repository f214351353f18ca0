"""Compile the fused kernels for a GPU that is not there, and count what a warp issues in their loops.

    python benchmarks/fused_attention_offline.py 90,bfloat16,64 80,float32,128,globals,dilated,dropout
    python benchmarks/fused_attention_offline.py --predict

An argument is an architecture, a dtype, a head_dim and any of padding, packed (sequences without padding), globals,
relative, dropout, dilated, global_attention (its kernels too) and ones (sides, heads and global keys 1 each). Prints
one JSON line per kernel, with --table lines to read, and with --predict how fast an H100 should be, see `cycle_model`.
Must run without TRITON_INTERPRET: kernels are either compiled or interpreted. Needs this repository's root on
PYTHONPATH where it is not installed.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cycle_model
import sass
import torch
import triton
from triton.backends.compiler import GPUTarget

from longformer.attention.fused import global_launch, launch, tiles
from longformer.attention.metadata import AttentionMetadata, GlobalTokens, packed_layout

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
# Of a multiprocessor: registers, bytes of shared memory, of which the system keeps 1 KiB a program, and threads.
REGISTERS, SHARED_MEMORY, THREADS = 65_536, {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}, 2048


class AbsentGpu:
    """Stands where Triton keeps the driver of the GPU; enough to compile, not to run."""

    def __init__(self, architecture: int) -> None:
        self._architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._architecture, 32)

    def get_current_device(self) -> int:
        # Triton keeps what it compiled by device: every architecture is one of its own.
        return self._architecture

    def get_current_stream(self, _device: int) -> int:
        return 0


def compile_kernels(
    architecture: int, dtype: torch.dtype, head_dim: int, features: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield what each kernel of a forward and backward call uses, with the tiles that the table holds for it."""
    triton.runtime.driver.set_active(AbsentGpu(architecture))
    compiled = []

    def compile_only(kernel: Any, grid: tuple[int, ...], tile: tiles.Tile, *arguments: Any, **constants: Any) -> None:
        options = {"num_warps": tile.warps, "num_stages": tile.stages}
        compiled.append((kernel, tile, kernel.warmup(*arguments, **constants, **options, grid=grid)))

    with (
        patch.object(launch, "start", compile_only),
        patch.object(global_launch, "start", compile_only),
        patch.object(launch, "_major", lambda _: architecture // 10),
    ):
        call = example_call(dtype, head_dim, features)
        output, lse = call.forward()
        gradients = torch.empty(*output.shape[:2], 3, *output.shape[2:], dtype=dtype).unbind(2)
        call.backward(output, lse, torch.empty_like(output), gradients)
        if "global_attention" in features:
            queries = torch.empty(2, 48, *call.query.shape[2:], dtype=dtype)
            attention = global_launch.GlobalAttentionCall(queries, replace(call, dilations=(1, 1)))
            output, lse = attention.forward()
            attention.backward(output, lse, output)
    for kernel, tile, binary in compiled:
        used = resources(binary)
        yield {"kernel": kernel.__name__, "tile": vars(tile)} | used | {"programs": programs(used, tile, architecture)}


def example_call(dtype: torch.dtype, head_dim: int, features: set[str]) -> launch.Call:
    heads, side = (1, 1) if "ones" in features else (2, 256)
    batch = (1, 1024) if "packed" in features else (2, 512)
    query, key, value = torch.empty(*batch, 3, heads, head_dim, dtype=dtype).unbind(2)
    layout, extra = None, {}
    if "packed" in features:
        bounds, marked = torch.tensor([0, 512, 1024]), torch.arange(1024)[None] % 512 == 0
        layout = packed_layout(1024, bounds, 512, GlobalTokens.find(marked, bounds) if "globals" in features else None)
    elif features & {"padding", "globals", "ones"}:
        is_global = torch.eye(2, 512).bool() if features & {"globals", "ones"} else None
        is_real = torch.arange(512).expand(2, -1) < 500 if "padding" in features else None
        layout = AttentionMetadata.of(is_real, is_global).layout
    if "relative" in features:
        relative_key = torch.empty(2 * side + 1, heads, head_dim, dtype=dtype)
        extra["relative"] = (torch.empty(*batch, heads, head_dim, dtype=dtype), relative_key)
    if "dropout" in features:
        extra |= {"dropout": 0.1, "seed": torch.zeros(1, dtype=torch.int64)}
    dilations = (1, 2) if "dilated" in features else (1,) * heads
    return launch.Call(query, key, value, side, side, dilations, False, head_dim**-0.5, layout, **extra)


def resources(binary: Any) -> dict[str, Any]:
    """Read what a kernel uses: a stack exists where registers were spilled, and only there."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, listing = (
            subprocess.run([TOOLS / name, option, file.name], capture_output=True, text=True, check=True).stdout
            for name, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    assembly = binary.asm["ptx"]
    return {
        "registers": int(registers),
        "stack": int(stack),
        "shared_memory": binary.metadata.shared,
        # Products of one warp, Hopper's of four, and Blackwell's.
        "mma": assembly.count("mma.sync"),
        "wgmma": assembly.count("wgmma.mma_async"),
        "tcgen05": assembly.count("tcgen05.mma"),
        # What a warp issues in one round, between the edges of the band and with everything that an edge asks for.
        "loops": [
            {
                "middle": len(loop.shortest),
                "edge": len(loop.longest),
                "async_copies": sum(opcode.startswith("LDGSTS") for opcode in loop.shortest),
                "products": sum("MMA" in opcode for opcode in loop.shortest),
            }
            for loop in sass.loops(listing)
        ],
    }


def programs(used: dict[str, Any], tile: tiles.Tile, architecture: int) -> int:
    """Return how many programs of a kernel run on a multiprocessor side by side."""
    threads = 32 * tile.warps
    registers = -(-used["registers"] // 8) * 8 * threads
    return min(
        REGISTERS // registers,
        SHARED_MEMORY[architecture] // (used["shared_memory"] + 1024),
        THREADS // threads,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="*", metavar="CONFIGURATION", help="what to compile, see above")
    parser.add_argument("--table", action="store_true", help="print lines to read in place of JSON")
    parser.add_argument("--predict", action="store_true", help="print the speed that the machine code promises")
    arguments = parser.parse_args()
    for configuration in arguments.configurations:
        architecture, dtype, head_dim, *features = configuration.split(",")
        for kernel in compile_kernels(int(architecture), getattr(torch, dtype), int(head_dim), set(features)):
            line = {"configuration": configuration} | kernel
            print(as_text(line) if arguments.table else json.dumps(line), flush=True)
    if arguments.predict:
        plain, with_global = (list(compile_kernels(90, torch.bfloat16, 64, each)) for each in (set(), {"globals"}))
        print(json.dumps({"prediction": cycle_model.predict(plain, with_global)}))


def as_text(line: dict[str, Any]) -> str:
    """Return the figures of a kernel as a line of a table."""
    tile = line["tile"]
    rounds = "; ".join(
        f"{loop['middle']} / {loop['edge']} instructions, {loop['async_copies']} asynchronous copies"
        for loop in line["loops"]
    )
    return (
        f"{line['configuration']}: {line['kernel']} {tile['rows']}x{tile['step']}, {tile['warps']} warps, "
        f"{tile['stages']} stages: {line['registers']} registers, {line['stack']} B of stack, "
        f"{line['shared_memory'] / 1024:.0f} KiB, {line['programs']} programs; {rounds}"
    )


if __name__ == "__main__":
    main()
