"""Check the fused attention on this GPU, then measure it beside its peers: one command for a session with a GPU.

    python benchmarks/fused_attention_on_gpu.py --output benchmarks/results/fused_attention_h100.json

First runs the whole numeric suite on the device with pytest; a failure ends the script before anything is timed. Then
measures forward and backward against FlashAttention-2's sliding window (PyTorch's own operator), FlexAttention with
the Longformer mask, dense SDPA and Hugging Face's layer. Writes JSON and prints a short table last.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from longformer.attention import Band, banded_attention

REPOSITORY = Path(__file__).resolve().parent.parent
# Dense attention and Hugging Face's layer are not asked for more than this: they would take minutes or all memory.
LONGEST_FOR_DENSE = 32_768

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """One point of comparison; `window` is both sides together, half of it each (all of it to the left if causal)."""

    positions: int = 16_384
    window: int = 512
    batch: int = 4
    heads: int = 12
    head_dim: int = 64
    dilation: int = 1
    global_tokens: int = 0
    causal: bool = False
    dtype: str = "bfloat16"

    @property
    def band(self) -> Band:
        left, right = (self.window, 0) if self.causal else (self.window // 2, self.window // 2)
        return Band(left, right, self.dilation)

    def inputs(self) -> list[Tensor]:
        shape = (self.batch, self.positions, self.heads, self.head_dim)
        return [
            torch.randn(shape, device="cuda", dtype=getattr(torch, self.dtype), requires_grad=True) for _ in range(3)
        ]

    def useful_flops(self) -> float:
        """Operations of the forward pass on pairs inside the band; backward has 2.5 times as many."""
        return self.batch * self.heads * self.band.forward_flops(self.positions, self.head_dim)


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


def peers(setting: Setting) -> Iterator[tuple[str, Attend]]:
    """Yield what can compute this setting: not every peer has dilation or global tokens, or the memory."""
    band, plain = setting.band, setting.dilation == 1 and setting.global_tokens == 0
    global_mask = None
    if setting.global_tokens:
        step = setting.positions // setting.global_tokens
        global_mask = (torch.arange(setting.positions, device="cuda") % step == 0).expand(setting.batch, -1)
    options = {"left": band.left, "right": band.right, "dilation": band.dilation, "causal": setting.causal}
    yield "fused", lambda *tensors: banded_attention(*tensors, **options, global_mask=global_mask, backend="fused")
    yield "flex", longformer_flex(setting, global_mask)
    if plain:
        yield "flash-2", lambda *tensors: FlashWindow.apply(*tensors, band.left, band.right)
    if setting.positions <= LONGEST_FOR_DENSE:
        yield "dense", lambda *tensors: by_head(torch.nn.functional.scaled_dot_product_attention, *tensors)
        if plain and not setting.causal:
            yield "hugging face", hugging_face(setting)


class FlashWindow(torch.autograd.Function):
    """FlashAttention-2's sliding window, which PyTorch carries but does not offer as a differentiable function."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, left: int, right: int) -> Tensor:  # type: ignore[override]
        length = query.shape[1]
        output, log_sum, random_state, unused, _ = torch.ops.aten._flash_attention_forward(
            query,
            key,
            value,
            None,
            None,
            length,
            length,
            0.0,
            False,
            False,
            window_size_left=left,
            window_size_right=right,
        )
        ctx.save_for_backward(query, key, value, output, log_sum, random_state, unused)
        ctx.sides = left, right
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        query, key, value, output, log_sum, random_state, unused = ctx.saved_tensors
        length = query.shape[1]
        gradients = torch.ops.aten._flash_attention_backward(
            gradient, query, key, value, output, log_sum, None, None, length, length, 0.0, False, random_state, unused,
            window_size_left=ctx.sides[0], window_size_right=ctx.sides[1],
        )  # fmt: skip
        return *gradients, None, None


def longformer_flex(setting: Setting, global_mask: Tensor | None) -> Attend:
    band = setting.band

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        steps = (key - query) // band.dilation
        seen = (steps * band.dilation == key - query) & (steps >= -band.left) & (steps <= band.right)
        return seen if global_mask is None else seen | global_mask[batch, key]

    batch = None if global_mask is None else setting.batch
    block_mask = create_block_mask(visible, batch, None, setting.positions, setting.positions, _compile=True)
    compiled = torch.compile(flex_attention)
    return lambda *tensors: by_head(lambda *heads: compiled(*heads, block_mask=block_mask), *tensors)


def hugging_face(setting: Setting) -> Attend:
    """Hugging Face's layer, its three projections included; it reads only the query, as hidden states."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    hidden = setting.heads * setting.head_dim
    config = LongformerConfig(
        hidden_size=hidden, num_attention_heads=setting.heads, attention_window=[setting.window], num_hidden_layers=1,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    layer = LongformerSelfAttention(config, 0).to("cuda", getattr(torch, setting.dtype))
    mask = torch.zeros(setting.batch, setting.positions, device="cuda", dtype=getattr(torch, setting.dtype))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        hidden_states = query.flatten(2)
        output = layer(
            hidden_states, mask, is_index_masked=mask < 0, is_index_global_attn=mask > 0, is_global_attn=False
        )
        return output[0].view_as(query)

    return attend


def by_head(attend: Attend, *tensors: Tensor) -> Tensor:
    """Call an engine that wants heads before positions."""
    return attend(*(tensor.transpose(1, 2) for tensor in tensors)).transpose(1, 2)


@dataclass(frozen=True)
class Measurement:
    """Medians in milliseconds; bytes are the growth of allocated memory over one forward and backward pass."""

    engine: str
    setting: Setting
    forward_ms: float
    backward_ms: float
    forward_tflops: float
    backward_tflops: float
    peak_bytes: int


def measure(engine: str, attend: Attend, setting: Setting) -> Measurement:
    inputs = setting.inputs()
    gradient = torch.randn_like(inputs[0])
    # Hugging Face's layer reads only the first of the inputs.
    differentiate = partial(torch.autograd.grad, inputs=inputs, grad_outputs=gradient, allow_unused=True)
    differentiate(attend(*inputs))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output = attend(*inputs)
    differentiate(output, retain_graph=True)
    peak = torch.cuda.max_memory_allocated() - before
    forward_ms = triton.testing.do_bench(lambda: attend(*inputs), return_mode="median")
    backward_ms = triton.testing.do_bench(lambda: differentiate(output, retain_graph=True), return_mode="median")
    flops = setting.useful_flops()
    return Measurement(
        engine, setting, forward_ms, backward_ms, flops / forward_ms / 1e9, 2.5 * flops / backward_ms / 1e9, peak
    )


def measured_peak_tflops() -> float:
    """What a large bf16 product reaches on this device."""
    factor = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / triton.testing.do_bench(lambda: factor @ factor, return_mode="median") / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--skip-checks", action="store_true", help="measure without running the numeric suite first")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: no CUDA device; this script checks and measures on a GPU")
    if not arguments.skip_checks:
        suite = ["tests/attention/fused", "tests/gpu", "-q", "-x"]
        if subprocess.run([sys.executable, "-m", "pytest", *suite], cwd=REPOSITORY).returncode:
            sys.exit("error: the numeric suite failed on this device; nothing was measured")

    peak, measurements = measured_peak_tflops(), []
    for setting in SETTINGS:
        for engine, attend in peers(setting):
            try:
                measurements.append(measure(engine, attend, setting))
            except (RuntimeError, ValueError) as problem:
                print(f"{engine} cannot run {setting}: {problem}", file=sys.stderr)
            torch.cuda.empty_cache()
    device = torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "triton": triton.__version__}
    report = {"device": device, "versions": versions, "peak_tflops": peak, "measurements": [*map(asdict, measurements)]}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1))
    print(f"{device}, {peak:.0f} TFLOP/s on a bf16 product")
    for one in measurements:
        changed = {name: value for name, value in asdict(one.setting).items() if value != asdict(Setting())[name]}
        forward = f"forward {one.forward_ms:8.3f} ms {one.forward_tflops:4.0f} TFLOP/s"
        backward = f"backward {one.backward_ms:8.3f} ms {one.backward_tflops:4.0f} TFLOP/s"
        print(f"{one.engine:13} {forward}  {backward}  {one.peak_bytes / 2**20:7.0f} MiB  {changed or 'default'}")


if __name__ == "__main__":
    main()
