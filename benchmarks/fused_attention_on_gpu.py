"""Check the fused attention on this GPU, then measure it beside its peers: one command for a session with a GPU.

    python benchmarks/fused_attention_on_gpu.py --output benchmarks/results/fused_attention_h100.json

First runs the numeric suite on the device with pytest, and a small case under compute-sanitizer where that is there; a
failure ends the script before anything is timed. Then measures forward and backward against FlashAttention-2's sliding
window (PyTorch's own operator), FlashAttention-3's where it is installed, FlexAttention with the Longformer mask, dense
SDPA, our portable engine and Hugging Face's layer. Writes the JSON after every measurement, so that a session cut short
keeps what it has, and prints a short table last. Needs this repository's root on PYTHONPATH where it is not installed.
"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from gpu_attention_peers import Attend, Setting, engines
from torch import Tensor
from triton.testing import do_bench

from longformer.attention import banded_attention
from longformer.files import write_json

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS = (
    Setting(),
    Setting(global_tokens=1),
    Setting(global_tokens=64),
    Setting(dilation=2),
    Setting(dilation=4),
    Setting(causal=True),
    Setting(window=128),
    Setting(window=1024),
    Setting(head_dim=128),
    Setting(positions=4_096, batch=16),
    Setting(positions=65_536, batch=1),
    Setting(positions=262_144, batch=1),
)


@dataclass(frozen=True)
class Measurement:
    """Medians in milliseconds; `peak_bytes` is how far allocated memory rises over one forward and backward pass."""

    engine: str
    setting: Setting
    forward_ms: float
    backward_ms: float
    forward_tflops: float
    backward_tflops: float
    saved_bytes: int
    peak_bytes: int


@dataclass
class Report:
    """What one run found; the numbers of operations are those of pairs inside the band."""

    device: str
    versions: dict[str, str]
    peak_tflops: float
    measurements: list[Measurement] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return one line per measurement: times, useful TFLOP/s with their share of the peak, time against ours."""
        lines = [f"{self.device}, {self.peak_tflops:.0f} TFLOP/s on a bf16 product"]
        ours = {one.setting: one for one in self.measurements if one.engine == "fused"}
        for one in self.measurements:
            changed = {name: value for name, value in asdict(one.setting).items() if value != asdict(Setting())[name]}
            parts = [f"{one.engine:12}"]
            for name in ("forward", "backward"):
                time, flops = getattr(one, f"{name}_ms"), getattr(one, f"{name}_tflops")
                part = f"{name} {time:8.3f} ms {flops:4.0f} TFLOP/s {flops / self.peak_tflops:4.0%}"
                if one.setting in ours:
                    part += f" {time / getattr(ours[one.setting], f'{name}_ms'):6.2f} x ours"
                parts.append(part)
            lines.append("  ".join([*parts, f"saved {one.saved_bytes / 2**20:6.0f} MiB", str(changed or "default")]))
        return "\n".join(lines + self.refusals)


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
    setting = Setting(positions=300, window=100, batch=2, heads=2, global_tokens=2)
    inputs, positions = setting.inputs(), setting.positions
    token_mask = torch.arange(positions, device="cuda") < torch.tensor([[positions], [200]], device="cuda")
    relative = {"relative_query": torch.randn_like(inputs[0]), "relative_key": torch.randn_like(inputs[0][0, :101])}
    attend = partial(banded_attention, *inputs, left=50, right=50, token_mask=token_mask, dropout=0.1, backend="fused")
    for options in ({"global_mask": setting.global_mask(), "dilation": (1, 3)}, relative):
        attend(**options).sum().backward()
    torch.cuda.synchronize()


def measure(engine: str, attend: Attend, setting: Setting) -> Measurement:
    inputs = setting.inputs()
    gradient = torch.randn_like(inputs[0])
    # Hugging Face's layer reads only the first of the inputs.
    differentiate = partial(torch.autograd.grad, inputs=inputs, grad_outputs=gradient, allow_unused=True)
    saved: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        differentiate(attend(*inputs))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output = attend(*inputs)
    differentiate(output, retain_graph=True)
    peak = torch.cuda.max_memory_allocated() - before
    forward_ms = do_bench(lambda: attend(*inputs), return_mode="median")
    backward_ms = do_bench(lambda: differentiate(output, retain_graph=True), return_mode="median")
    flops = setting.useful_flops() / 1e9
    return Measurement(
        engine, setting, forward_ms, backward_ms, flops / forward_ms, 2.5 * flops / backward_ms,
        sum(saved.values()), peak,
    )  # fmt: skip


def measured_peak_tflops() -> float:
    """What a large bf16 product reaches on this device."""
    factor = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / do_bench(lambda: factor @ factor, return_mode="median") / 1e9


def measure_all(output: Path) -> Report:
    versions = {"torch": torch.__version__, "triton": triton.__version__}
    report = Report(torch.cuda.get_device_name(), versions, measured_peak_tflops())
    for setting in SETTINGS:
        for engine, build in engines(setting):
            try:
                report.measurements.append(measure(engine, build(setting), setting))
            except Exception as problem:  # whatever keeps a peer from running must not end the comparison
                first_line = (str(problem).splitlines() or [""])[0]
                report.refusals.append(f"{engine} did not run {setting}: {type(problem).__name__}: {first_line}")
            torch.cuda.empty_cache()
            write_json(output, asdict(report))
    return report


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
        print(measure_all(arguments.output).table())


if __name__ == "__main__":
    main()
