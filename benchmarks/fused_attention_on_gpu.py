"""Check and measure the fused attention on this GPU, in two parts of ten minutes each.

    python benchmarks/fused_attention_on_gpu.py first --output benchmarks/results/fused_attention_first.json
    python benchmarks/fused_attention_on_gpu.py second --output benchmarks/results/fused_attention_second.json

The first part compares every kernel with the reference, then times all of them in every setting, and the kernels of one
with other tiles. The second measures the peers, once they are found to compute the same, and runs the tests and
compute-sanitizer. Every row has a process of its own and a deadline; what fails is a row too. The JSON is written after
every row, those that tell the most first. `--rehearse` does all of it on the CPU, tiny and under Triton's interpreter.
Needs this repository's root on PYTHONPATH where it is not installed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from longformer.attention.fused import tiles
from longformer.attention.layer import LongformerSelfAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.benchmarks.attention import run, saved_bytes
from longformer.benchmarks.attention_engines import BLOCKED, ENGINES
from longformer.benchmarks.device_times import (
    dearest_operators,
    host_seconds,
    in_words,
    kernel_times,
    replay_times,
    spread,
    synchronize,
)
from longformer.benchmarks.kernel_cases import KernelCase
from longformer.benchmarks.machine import device_facts
from longformer.benchmarks.memory import memory_of
from longformer.benchmarks.rows import Absent, Row, Rows
from longformer.benchmarks.setting import Attend, Setting

REPOSITORY = Path(__file__).resolve().parent.parent
IMPORTED = ("torch", "longformer.attention.fused.engine", "longformer.benchmarks.kernel_cases", "torch._dynamo")
USUAL = KernelCase(positions=16_384, batch=4, device="cuda", dtype="bfloat16")
DROPOUT = replace(USUAL, dropout=0.1)
CASES = {
    "plain": USUAL,
    "dropout 0.1": DROPOUT,
    "1 global": replace(USUAL, global_tokens=1),
    "padding 30 %": replace(USUAL, padding=0.3),
    "padding 30 % taken out": replace(USUAL, padding=0.3, packed=True),
    "as in training": replace(DROPOUT, global_tokens=1, padding=0.3),
    "one row of 4,096": replace(USUAL, positions=4_096, batch=1),
    "16 globals in front": replace(USUAL, global_tokens=16, globals_in_front=True),
    "64 globals spread": replace(USUAL, global_tokens=64),
    "window 128": replace(USUAL, window=128),
    "window 1,024": replace(USUAL, window=1024),
    "causal": replace(USUAL, causal=True),
    "dilation 4": replace(USUAL, dilation=4),
    "head 128": replace(USUAL, head_dim=128),
    "16 rows of 4,096": replace(USUAL, positions=4_096, batch=16),
    "65,536 positions": replace(USUAL, positions=65_536, batch=1),
    "262,144 positions": replace(USUAL, positions=262_144, batch=1),
    "float32": replace(USUAL, dtype="float32"),
    "relative, causal": replace(USUAL, relative=True, causal=True),
    "padding and 5 globals": replace(USUAL, padding=0.3, global_tokens=5),
    "relative, causal, dropout 0.1": replace(DROPOUT, relative=True, causal=True),
}
SMOKE = (
    "plain",
    "causal",
    "dilation 4",
    "padding and 5 globals",
    "relative, causal",
    "head 128",
    "float32",
    "dropout 0.1",
    "padding 30 % taken out",
)
TOLERANCES = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}
# (rows, step, warps, stages); the shipped one is among those of every kernel.
TILES = {
    "forward": [(64, 64, 4, 3), (64, 64, 4, 2), (128, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2),
                (64, 128, 4, 2), (64, 32, 4, 4)],
    "query_gradient": [(64, 64, 4, 3), (64, 64, 4, 2), (128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 8, 3),
                       (128, 32, 8, 3), (64, 32, 4, 4), (64, 128, 8, 2)],
    "key_gradient": [(64, 64, 4, 3), (64, 64, 4, 2), (64, 64, 8, 2), (128, 64, 8, 2), (128, 64, 8, 3), (64, 32, 4, 2),
                     (64, 32, 4, 3), (128, 32, 8, 3)],
}  # fmt: skip
PEERS_FIRST = [
    ("FlashAttention-2", name)
    for name in ("plain", "causal", "window 128", "head 128", "16 rows of 4,096", "65,536 positions")
] + [(BLOCKED, "float32")]
PEERS = [
    *(("FlexAttention", name) for name in ("plain", "1 global", "causal")),
    *(("Hugging Face", name) for name in ("plain", "16 rows of 4,096", "window 1,024")),
    ("dense SDPA", "plain"),
    *(("FlashAttention-3", name) for name in ("plain", "causal")),
    *(("FlashAttention-4", name) for name in ("plain", "causal")),
]
KERNELS = (
    "forward_kernel", "query_gradient_kernel", "key_gradient_kernel", "global_chunk_kernel", "global_sum_kernel",
    "relative_gradient_kernel",
)  # fmt: skip


def first_part(rehearse: bool) -> Iterator[tuple[list[Row], bool]]:
    """Yield rows, and whether they may share the device: what compiles or compares takes all processors at once."""
    sweep = [(kernel, shape) for kernel, shapes in TILES.items() for shape in shapes][:: 8 if rehearse else 1]

    def times(names: list[str]) -> list[Row]:
        return [case_row("times", name, rehearse) for name in names]

    def tiles(name: str) -> Iterator[tuple[list[Row], bool]]:
        compiled, timed = (
            [case_row(kind, name, rehearse, kernel=kernel, shape=shape) for kernel, shape in sweep]
            for kind in ("compile", "tile")
        )
        yield compiled, True
        yield timed, False

    yield [machine_row(rehearse)], False
    yield [case_row("smoke", name, rehearse) for name in SMOKE], True
    yield [case_row("compile", name, rehearse) for name in list(CASES)[:: 4 if rehearse else 1]], True
    yield times(list(CASES)[: 7 : 4 if rehearse else 1]), False
    yield from tiles("plain")
    yield [case_row("peer", name, rehearse, engine=engine) for engine, name in PEERS_FIRST], False
    yield times(list(CASES)[7 :: 12 if rehearse else 1]), False
    yield from tiles("dropout 0.1")
    yield [machine_row(rehearse)], False


def second_part(rehearse: bool) -> Iterator[tuple[list[Row], bool]]:
    """Yield rows as `first_part` does."""
    yield [machine_row(rehearse)], False
    yield [case_row("layer", "as in training", rehearse, compiled=compiled) for compiled in (False, True)], False
    yield [case_row("peer", name, rehearse, engine=engine) for engine, name in PEERS[:: 3 if rehearse else 1]], False
    yield [Row("tests", {"kind": "tests", "rehearse": rehearse}, 300.0)], False
    yield (
        [
            Row(f"compute-sanitizer {tool}", {"kind": "sanitizer", "tool": tool, "rehearse": rehearse}, 120.0)
            for tool in ("memcheck", "racecheck")
        ],
        False,
    )
    yield [machine_row(rehearse)], False


def case_row(kind: str, name: str, rehearse: bool, **more: Any) -> Row:
    """Return a row about one of the cases."""
    case = CASES[name].tiny() if rehearse else CASES[name]
    words = " ".join(str(value) for value in (kind, *more.values()))
    return Row(f"{words}: {name}", {"kind": kind, "case": asdict(case), **more}, 90.0)


def machine_row(rehearse: bool) -> Row:
    return Row("machine", {"kind": "machine", "device": "cpu" if rehearse else "cuda"})


def work(kind: str, **arguments: Any) -> dict[str, Any]:
    """Return the result of a row."""
    if "case" in arguments:
        arguments["case"] = KernelCase(**arguments["case"])
    return KINDS[kind](**arguments)


def training_call(case: KernelCase, attend: Attend) -> Callable[[], list[Tensor]]:
    """Return what computes output and gradients, over and over from the same tensors."""
    (*inputs, gradient) = case.inputs()
    return partial(output_and_gradients, attend, inputs, gradient)


def output_and_gradients(attend: Attend, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    output = attend(*inputs)
    gradients = torch.autograd.grad(output, inputs, gradient) if inputs[0].requires_grad else ()
    return [output.detach(), *gradients]


def with_seed(call: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Return what a call gives, with the same dropout every time."""
    torch.manual_seed(0)
    return call()


def compare(found: list[Tensor], right: list[Tensor], tolerance: float) -> dict[str, float]:
    """Return by how much output and gradients differ, relative to their norms.

    Raises:
        ValueError: too much.
    """
    names = ("output", "query gradient", "key gradient", "value gradient")
    apart = {
        name: float((one.double() - other.double()).norm() / other.double().norm())
        for name, one, other in zip(names, found, right, strict=False)
    }
    if not all(difference <= tolerance for difference in apart.values()):
        raise ValueError(f"differs by more than {tolerance}: {apart}")
    return apart


@contextmanager
def tile(kernel: str, shape: Sequence[int]) -> Iterator[None]:
    """Lets a kernel take another tile than the table's."""
    choose = tiles.choose_tiles

    def chosen(*arguments: Any) -> tiles.TileSet:
        return replace(choose(*arguments), **{kernel: tiles.Tile(*shape)})

    with patch.object(tiles, "choose_tiles", chosen):
        yield


def smoke(case: KernelCase) -> dict[str, Any]:
    """Compare with the dense reference in float64, and dropout, which that draws otherwise, by other tiles."""
    case = replace(case, positions=min(case.positions, 700), batch=2, heads=min(case.heads, 2))
    (*inputs, gradient), attend = case.inputs(), case.attend()
    ours = with_seed(partial(output_and_gradients, attend, inputs, gradient))
    if case.dropout:
        with (
            tile("forward", (64, 32, 4, 2)),
            tile("query_gradient", (64, 32, 4, 2)),
            tile("key_gradient", (64, 32, 4, 2)),
        ):
            right = with_seed(partial(output_and_gradients, attend, inputs, gradient))
    else:
        exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
        right = output_and_gradients(case.attend("reference"), exact, gradient.double())
    return compare(ours, right, TOLERANCES[case.dtype])


def compile_kernels(case: KernelCase, kernel: str = "", shape: Sequence[int] = ()) -> dict[str, Any]:
    """Run a short case once, after which its kernels are compiled on this machine."""
    case = case.short()
    with tile(kernel, shape) if kernel else nullcontext():
        training_call(case, case.attend())()
        synchronize(case.device)
    return {}


def measure_times(case: KernelCase) -> dict[str, Any]:
    """Return the times of every kernel, of all of them together, and of the host; and the memory."""
    attend, repeats = case.attend(), repeats_of(case)
    call = training_call(case, attend)
    kernels = kernel_times(call, case.device, repeats)
    found: dict[str, Any] = {"kernels": {name: spread(kernels[name]) for name in KERNELS if name in kernels}}
    found["other kernels ms"] = 1e3 * sum(sum(kernels[name]) for name in kernels.keys() - {*KERNELS}) / repeats
    forward, backward = case.useful_flops
    medians = {name: times["median_ms"] for name, times in found["kernels"].items()}
    found["forward ms"] = medians.pop("forward_kernel")
    found["backward ms"] = sum(medians.values())
    found["forward TFLOP/s"] = forward / found["forward ms"] / 1e9
    found["backward TFLOP/s"] = backward / found["backward ms"] / 1e9
    whole = spread(replay_times(call, case.device, repeats))
    found |= {
        "graph": whole,
        "graph ms": whole["median_ms"],
        "TFLOP/s": (forward + backward) / whole["median_ms"] / 1e9,
    }
    found["host ms"] = 1e3 * host_seconds(call, case.device, repeats)
    found["extra MiB"] = memory_of(call, case.device)[0] / 2**20
    found["saved MiB"] = saved_bytes(case, attend) / 2**20
    return found


def repeats_of(case: KernelCase) -> int:
    return 1 if case.device == "cpu" else 20


def measure_tile(case: KernelCase, kernel: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return the times of one kernel with another tile, once it is found to compute the same as the shipped one."""
    call = training_call(case, case.attend())
    shipped = with_seed(call)
    with tile(kernel, shape):
        found: dict[str, Any] = {"apart": compare(with_seed(call), shipped, TOLERANCES[case.dtype])}
        return found | spread(kernel_times(call, case.device, repeats_of(case))[f"{kernel}_kernel"])


def measure_peer(case: KernelCase, engine: str) -> dict[str, Any]:
    """Return the times of a peer and of ours by turns, once both are found to compute the same."""
    (peer,) = (each for each in ENGINES if each.name == engine)
    setting = Setting(**{field.name: getattr(case, field.name) for field in fields(Setting)})
    if setting.device == "cpu":
        # Halves are slow there, and FlexAttention has no backward.
        setting = replace(setting, dtype="float32", backward=engine != "FlexAttention")
    if reason := peer.why_not(setting):
        raise Absent(f"{engine} {reason}")
    contenders = {"ours": case.attend(), "theirs": peer.build(setting)}
    (*inputs, gradient) = setting.inputs()
    ours, theirs = (output_and_gradients(attend, inputs, gradient) for attend in contenders.values())
    found: dict[str, Any] = {"apart": compare(theirs, ours, 2 * TOLERANCES[setting.dtype])}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repeats_of(case)):
        for name, attend in contenders.items():
            times[name].append(run(setting, attend, (*inputs, gradient)))
    for number, direction in enumerate(("forward", "backward")):
        for name, runs in times.items():
            found[f"{name} {direction}"] = spread([each[number] for each in runs])
        found[f"{direction} ms"], of_ours = (found[f"{name} {direction}"]["median_ms"] for name in ("theirs", "ours"))
        found[f"ours {direction} ms"] = of_ours
    return found


def measure_layer(case: KernelCase, compiled: bool) -> dict[str, Any]:
    """Return the times of a whole layer, forward and backward, and of its kernels."""
    width = case.heads * case.head_dim
    layer = LongformerSelfAttention(width, case.heads, case.band, dropout=case.dropout, backend="fused")
    layer.to(case.device, getattr(torch, case.dtype)).train()
    tokens = AttentionMetadata.of(case.token_mask(), case.global_mask())
    hidden, gradient = (tensor.detach().flatten(2) for tensor in case.inputs()[::3])
    inputs = [hidden.requires_grad_(), *layer.parameters()]
    function = torch.compile(layer, fullgraph=True, dynamic=True, backend=COMPILERS[case.device]) if compiled else layer

    def call() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(hidden, tokens), inputs, gradient)

    dearest = dearest_operators(call, case.device, repeats_of(case))
    host = 1e3 * host_seconds(call, case.device, repeats_of(case))
    whole = spread(replay_times(call, case.device, repeats_of(case)))
    times = {"graph ms": whole["median_ms"], "graph": whole, "host ms": host}
    return times | {"dearest": in_words(dearest), "operators": dearest}


def run_tests(rehearse: bool) -> dict[str, Any]:
    """Return what pytest says of the fused attention on this device."""
    suite = ["tests/gpu"] if rehearse else ["tests/gpu", "tests/attention/fused"]
    # tests/conftest.py asks for the launcher, which a machine of bare PyTorch cannot import; without it hypothesis
    # would watch the clock.
    options = [
        "--confcutdir=tests/attention",
        "--hypothesis-profile=ci",
        "-m",
        "not slow",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    if find_spec("xdist") is not None and not rehearse:
        options += ["-n", "8"]
    # Interrupted it still tells what has failed so far.
    command = ["timeout", "--signal=INT", "270", sys.executable, "-m", "pytest", *suite, *options]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.splitlines()
    failed = [line for line in printed if line.startswith(("FAILED", "ERROR"))]
    return {"said": printed[-1], "failed": failed, "report": printed[-100:]}


def sanitize(tool: str, rehearse: bool) -> dict[str, Any]:
    """Return what compute-sanitizer says of a small case; in a rehearsal the case runs without it."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None and not rehearse:
        raise Absent("compute-sanitizer is not installed")
    watched = [] if sanitizer is None else [sanitizer, "--tool", tool, "--error-exitcode", "1"]
    # PyTorch hands out parts of larger blocks, inside which nothing would be out of bounds.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [*watched, sys.executable, __file__, "small-case"]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    said = (ended.stdout + ended.stderr).strip().splitlines()
    return {"exit code": ended.returncode, "said": said[-1] if said else "nothing", "report": said[:100]}


def run_small_case() -> None:
    """Do little, with every kernel: what compute-sanitizer watches."""
    for name in ("as in training", "relative, causal, dropout 0.1"):
        small = replace(CASES[name], positions=300, window=100, batch=2, heads=2)
        case = small if torch.cuda.is_available() else CASES[name].tiny()
        training_call(case, case.attend())()
        synchronize(case.device)


COMPILERS = {"cuda": "inductor", "cpu": "aot_eager"}
KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "machine": device_facts,
    "smoke": smoke,
    "compile": compile_kernels,
    "times": measure_times,
    "tile": measure_tile,
    "peer": measure_peer,
    "layer": measure_layer,
    "tests": run_tests,
    "sanitizer": sanitize,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part", choices=["first", "second", "small-case"], help="which rows; the case is for the sanitizer"
    )
    parser.add_argument("--output", type=Path, default=Path("fused_attention.json"), help="JSON file to write")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which nothing more is begun")
    parser.add_argument("--rehearse", action="store_true", help="the same on the CPU, tiny")
    arguments = parser.parse_args()
    if arguments.part == "small-case":
        run_small_case()
        return
    if arguments.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        sys.exit("error: no CUDA device; --rehearse does the same on the CPU")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    header = {"part": arguments.part, "rehearsal": arguments.rehearse}
    rows = Rows(arguments.output, header, arguments.minutes, IMPORTED)
    part = first_part if arguments.part == "first" else second_part
    for some, together in part(arguments.rehearse):
        rows.take(some, work, at_once=len(os.sched_getaffinity(0)) if together else 1)


if __name__ == "__main__":
    main()
