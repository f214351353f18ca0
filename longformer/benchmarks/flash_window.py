"""Sliding windows of FlashAttention 2, 3 and 4, from what PyTorch carries or from what is installed."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from longformer.benchmarks.setting import Attend, Setting


def why_no_flash(setting: Setting) -> str | None:
    """Returns why no FlashAttention can compute the setting, or None."""
    if setting.device != "cuda":
        return "runs on CUDA only"
    if setting.dtype not in ("bfloat16", "float16"):
        return f"does not know {setting.dtype}"
    if setting.dilation != 1:
        return "has no dilation"
    if setting.global_tokens:
        return "has no global tokens beside a window"
    return None


class FlashAttention2(torch.autograd.Function):
    """The operator that PyTorch carries, with the window it does not offer as a differentiable function."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, left: int, right: int) -> Tensor:
        length = query.shape[1]
        output, log_sum, random_state, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, None, None, length, length, 0.0, False, False,
            window_size_left=left, window_size_right=right,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, output, log_sum, random_state, unused)
        ctx.sides = left, right
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, log_sum, random_state, unused = ctx.saved_tensors
        length = query.shape[1]
        found = torch.ops.aten._flash_attention_backward(
            gradients[0], query, key, value, output, log_sum, None, None, length, length, 0.0, False,
            random_state, unused, window_size_left=ctx.sides[0], window_size_right=ctx.sides[1],
        )  # fmt: skip
        return (*found, None, None)


def flash_attention_2(setting: Setting) -> Attend:
    """Returns FlashAttention-2 on a sliding window."""
    band = setting.band
    return lambda query, key, value: FlashAttention2.apply(query, key, value, band.left, band.right)


def flash_attention_3(setting: Setting) -> Attend:
    """Returns FlashAttention-3 (package flash_attn_interface) on a sliding window."""
    return windowed(import_module("flash_attn_interface").flash_attn_func, setting)


def flash_attention_4(setting: Setting) -> Attend:
    """Returns FlashAttention-4 (package flash-attn-4) on a sliding window."""
    return windowed(import_module("flash_attn.cute").flash_attn_func, setting)


def windowed(flash_attention: Any, setting: Setting) -> Attend:
    """Calls a FlashAttention with the setting's window; some versions return the log-sums too."""
    window = (setting.band.left, setting.band.right)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = flash_attention(query, key, value, window_size=window)
        return output[0] if isinstance(output, tuple) else output

    return attend
