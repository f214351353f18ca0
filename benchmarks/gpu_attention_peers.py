"""The engines that the GPU benchmark compares: each builds, for one setting, a function from query, key and value.

A peer that is not installed, or that cannot compute a setting, says so with an exception; the benchmark reports it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from longformer.attention import Band, banded_attention

# What is quadratic, or keeps many copies, is not asked for more: it would take minutes or all memory.
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
        """Return query, key and value, each (batch, positions, heads, head_dim), that want gradients."""
        shape = (self.batch, self.positions, self.heads, self.head_dim)
        return [
            torch.randn(shape, device="cuda", dtype=getattr(torch, self.dtype), requires_grad=True) for _ in range(3)
        ]

    def global_mask(self) -> Tensor | None:
        """Return bool (batch, positions) of evenly spread global tokens, or None without any."""
        if not self.global_tokens:
            return None
        place = torch.arange(self.positions, device="cuda")
        return (place % (self.positions // self.global_tokens) == 0).expand(self.batch, -1)

    def useful_flops(self) -> float:
        """Operations of the forward pass on pairs inside the band; backward has 2.5 times as many."""
        return self.batch * self.heads * self.band.forward_flops(self.positions, self.head_dim)


def engines(setting: Setting) -> Iterator[tuple[str, Callable[[Setting], Attend]]]:
    """Yield the name and the builder of everything that computes this pattern, ours first."""
    plain = setting.dilation == 1 and setting.global_tokens == 0
    yield "fused", fused
    yield "flex", flex
    if plain:
        yield "flash-2", flash_2
        yield "flash-3", flash_3
    if setting.positions <= LONGEST_FOR_DENSE:
        yield "blocked", blocked
        if plain:
            yield "dense", dense
            if not setting.causal:
                yield "hugging face", hugging_face


def fused(setting: Setting) -> Attend:
    return ours(setting, "fused")


def blocked(setting: Setting) -> Attend:
    return ours(setting, "blocked")


def ours(setting: Setting, backend: str) -> Attend:
    band, global_mask = setting.band, setting.global_mask()
    return lambda *tensors: banded_attention(
        *tensors, left=band.left, right=band.right, dilation=band.dilation, causal=setting.causal,
        global_mask=global_mask, backend=backend,
    )  # fmt: skip


def dense(setting: Setting) -> Attend:
    """PyTorch's attention without a band: every pair is computed."""
    return by_head(lambda *heads: scaled_dot_product_attention(*heads, is_causal=setting.causal))


def flex(setting: Setting) -> Attend:
    """FlexAttention with Longformer's mask; dilation is a mask to it, and saves nothing."""
    band, global_mask = setting.band, setting.global_mask()

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        steps = (key - query) // band.dilation
        seen = (steps * band.dilation == key - query) & (steps >= -band.left) & (steps <= band.right)
        return seen if global_mask is None else seen | global_mask[batch, key]

    # Compiled afresh for every setting: after eight shapes torch.compile would fall back to dense attention.
    torch._dynamo.reset()
    batch = None if global_mask is None else setting.batch
    block_mask = create_block_mask(visible, batch, None, setting.positions, setting.positions, _compile=True)
    compiled = torch.compile(flex_attention)
    return by_head(lambda *heads: compiled(*heads, block_mask=block_mask))


def flash_2(setting: Setting) -> Attend:
    """FlashAttention-2's sliding window, as PyTorch carries it."""
    return lambda *tensors: FlashWindow.apply(*tensors, setting.band.left, setting.band.right)


class FlashWindow(torch.autograd.Function):
    """PyTorch has the operator, but does not offer it as a differentiable function."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, left: int, right: int) -> Tensor:  # type: ignore[override]
        length = query.shape[1]
        output, log_sum, random_state, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, None, None, length, length, 0.0, False, False,
            window_size_left=left, window_size_right=right,
        )  # fmt: skip
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


def flash_3(setting: Setting) -> Attend:
    """FlashAttention-3's sliding window, from its own package or from xformers."""
    band = setting.band
    if find_spec("flash_attn_interface") is not None:
        from flash_attn_interface import flash_attn_func

        def attend(*tensors: Tensor) -> Tensor:
            output = flash_attn_func(*tensors, causal=setting.causal, window_size=(band.left, band.right))
            return output[0] if isinstance(output, tuple) else output

        return attend
    from xformers.ops import fmha

    bias = fmha.attn_bias.LocalAttentionFromBottomRightMask(window_left=band.left, window_right=band.right)
    operators = (fmha.flash3.FwOp, fmha.flash3.BwOp)
    return lambda *tensors: fmha.memory_efficient_attention(*tensors, attn_bias=bias, op=operators)


def hugging_face(setting: Setting) -> Attend:
    """Hugging Face's layer, its three projections included; it reads only the query, as hidden states."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=setting.heads * setting.head_dim, num_attention_heads=setting.heads,
        attention_window=[setting.window], num_hidden_layers=1, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    dtype = getattr(torch, setting.dtype)
    layer = LongformerSelfAttention(config, 0).to("cuda", dtype)
    mask = torch.zeros(setting.batch, setting.positions, device="cuda", dtype=dtype)
    masks = {"is_index_masked": mask < 0, "is_index_global_attn": mask > 0, "is_global_attn": False}
    return lambda query, key, value: layer(query.flatten(2), mask, **masks)[0].view_as(query)


def by_head(attend: Attend) -> Attend:
    """Call an engine that wants heads before positions."""
    return lambda *tensors: attend(*(tensor.transpose(1, 2) for tensor in tensors)).transpose(1, 2)
