"""Check the fused attention on this GPU, then measure it beside its peers: one command for a session with a GPU.

    python benchmarks/fused_attention_on_gpu.py --output benchmarks/results/fused_attention_h100.json

First runs the numeric suite on the device with pytest, and a small case under compute-sanitizer where that is there; a
failure ends the script before anything is timed. Then measures forward and backward beside every peer that is there
(longformer/benchmarks/attention_engines.py). Writes the JSON after every setting, so that a session cut short keeps
what it has, and prints a short table last. Needs this repository's root on PYTHONPATH where it is not installed.
"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from longformer.attention import banded_attention
from longformer.benchmarks.attention import Comparison, Measurement, compare
from longformer.benchmarks.machine import machine
from longformer.benchmarks.plot import pattern
from longformer.benchmarks.setting import Setting
from longformer.files import write_json

REPOSITORY = Path(__file__).resolve().parent.parent
USUAL = Setting(positions=16_384, batch=4, device="cuda", dtype="bfloat16")
SETTINGS = (
    USUAL,
    replace(USUAL, global_tokens=1),
    replace(USUAL, global_tokens=64),
    replace(USUAL, dilation=2),
    replace(USUAL, dilation=4),
    replace(USUAL, causal=True),
    replace(USUAL, window=128),
    replace(USUAL, window=1024),
    replace(USUAL, head_dim=128),
    replace(USUAL, positions=4_096, batch=16),
    replace(USUAL, positions=65_536, batch=1),
    replace(USUAL, positions=262_144, batch=1),
)
REPEATS = 30


def check() -> None:
    """Run the numeric suite and the sanitizer, or leave with an error."""
    parallel = ["-n", "8"] if find_spec("xdist") is not None else []
    suite = ["tests/attention/fused", "tests/gpu", "-q", "-x", "-m", "not slow", *parallel]
    if subprocess.run([sys.executable, "-m", "pytest", *suite], cwd=REPOSITORY).returncode:
        sys.exit("error: the numeric suite failed on this device; nothing was measured")
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print("compute-sanitizer is not installed: memory and races were not checked")
        return
    # PyTorch hands out parts of larger blocks, inside which nothing would be out of bounds.
    environment = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1"]
    for tool in ("memcheck", "racecheck"):
        command = [*environment, sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, __file__]
        if subprocess.run([*command, "--small-case"], cwd=REPOSITORY).returncode:
            sys.exit(f"error: compute-sanitizer's {tool} found a fault, see above; nothing was measured")


def run_small_case() -> None:
    """Do little, with every kernel: what compute-sanitizer watches."""
    setting = replace(USUAL, positions=300, window=100, batch=2, heads=2, global_tokens=2)
    (*inputs, gradient), positions = setting.inputs(), setting.positions
    token_mask = torch.arange(positions, device="cuda") < torch.tensor([[positions], [200]], device="cuda")
    relative = {"relative_query": torch.randn_like(inputs[0]), "relative_key": torch.randn_like(inputs[0][0, :101])}
    attend = partial(banded_attention, *inputs, left=50, right=50, token_mask=token_mask, dropout=0.1, backend="fused")
    for options in ({"global_mask": setting.global_mask(), "dilation": (1, 3)}, relative):
        attend(**options).backward(gradient)
    torch.cuda.synchronize()


def measure(output: Path) -> Comparison:
    """Measure every setting and write what is known after each."""
    found = Comparison()
    for setting in SETTINGS:
        comparison = compare([setting], repeats=REPEATS, report=print)
        found.measurements += comparison.measurements
        found.absences += comparison.absences
        write_json(output, {"machine": machine("cuda"), **found.as_json()})
        torch.cuda.empty_cache()
    return found


def table(measurements: list[Measurement]) -> str:
    """Return one line per measurement; times also as multiples of those of the first engine, which is ours."""
    lines = []
    for each in measurements:
        ours = next(other for other in measurements if other.setting == each.setting)
        lines.append(
            f"{each.engine:17} forward {each.forward_seconds * 1e3:8.3f} ms {each.forward_tflops:4.0f} TFLOP/s "
            f"{each.forward_seconds / ours.forward_seconds:6.2f}x  backward {each.backward_seconds * 1e3:8.3f} ms "
            f"{each.backward_tflops:4.0f} TFLOP/s {each.backward_seconds / ours.backward_seconds:6.2f}x  "
            f"saves {each.saved_bytes / 2**20:6,.0f} MiB  {each.setting.positions:,} positions, {pattern(each.setting)}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("fused_attention.json"), help="JSON file to write")
    stage = parser.add_mutually_exclusive_group()
    stage.add_argument("--only-checks", action="store_true", help="check, and measure nothing")
    stage.add_argument("--skip-checks", action="store_true", help="measure without checking first")
    stage.add_argument("--small-case", action="store_true", help="only run the case that compute-sanitizer watches")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: no CUDA device; this script checks and measures on a GPU")
    if arguments.small_case:
        run_small_case()
        return
    if not arguments.skip_checks:
        check()
    if not arguments.only_checks:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        found = measure(arguments.output)
        print(table(found.measurements))
        for each in found.absences:
            print(f"not measured: {each.engine}, {pattern(each.setting)}: {each.reason}")


if __name__ == "__main__":
    main()
