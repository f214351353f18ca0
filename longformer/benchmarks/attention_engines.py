"""The competitors of the attention benchmark, each a function from query, key and value to the attended values.

All of them compute the same thing from the same tensors; projections are left out, so what is measured is the
attention part alone. An engine that cannot compute a setting says why. Needs nothing but PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from longformer.attention import banded_attention
from longformer.benchmarks.flash_window import flash_attention_2, flash_attention_3, flash_attention_4, why_no_flash
from longformer.benchmarks.hugging_face_layer import hugging_face
from longformer.benchmarks.setting import Attend, Setting

FUSED, BLOCKED, HUGGING_FACE = "ours (fused)", "ours (blocked)", "Hugging Face"
# Beyond this the peers that are not linear in memory, or far from frugal, need many GiB.
LONGEST_FOR_PEERS = {"cpu": 16_384, "cuda": 32_768}


@dataclass(frozen=True)
class Engine:
    """A competitor: its name, what builds it, and what tells why it cannot compute a setting (None: it can)."""

    name: str
    build: Callable[[Setting], Attend]
    why_not: Callable[[Setting], str | None]


def ours(backend: str) -> Callable[[Setting], Attend]:
    """Returns what builds one of our own engines."""

    def build(setting: Setting) -> Attend:
        band, global_mask = setting.band, setting.global_mask()

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return banded_attention(
                query,
                key,
                value,
                left=band.left,
                right=band.right,
                dilation=band.dilation,
                causal=setting.causal,
                global_mask=global_mask,
                backend=backend,
            )

        return attend

    return build


def dense(setting: Setting) -> Attend:
    """Returns PyTorch's scaled_dot_product_attention with a dense mask of the band."""
    mask = dense_mask(setting)
    return by_head(partial(functional.scaled_dot_product_attention, attn_mask=mask))


def flex(setting: Setting) -> Attend:
    """Returns FlexAttention, compiled, with Longformer's mask."""
    # Else the compiler gives up after a few settings of one process.
    torch.compiler.reset()
    visible = visible_pairs(setting)
    mask = create_block_mask(
        lambda batch, head, query, key: visible(query, key),
        None,
        None,
        setting.positions,
        setting.positions,
        setting.device,
        # Else the pairs are laid out one by one before they are summed up by block.
        _compile=setting.device == "cuda",
    )
    return by_head(partial(torch.compile(flex_attention, dynamic=False), block_mask=mask))


def visible_pairs(setting: Setting) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the function that tells which query positions see which key positions."""
    band, causal, global_mask = setting.band, setting.causal, setting.global_mask()

    def visible(query: Tensor, key: Tensor) -> Tensor:
        distance = key - query
        steps = distance // band.dilation
        seen = (steps * band.dilation == distance) & (steps >= -band.left) & (steps <= band.right)
        if global_mask is None:
            return seen
        is_global = global_mask[0, key]
        return seen | (is_global & (distance <= 0) if causal else is_global)

    return visible


def dense_mask(setting: Setting) -> Tensor:
    """Returns which keys (columns) every query (row) sees, built in strips so that only the mask itself is large."""
    visible, position = visible_pairs(setting), torch.arange(setting.positions, device=setting.device)
    mask = torch.empty(setting.positions, setting.positions, dtype=torch.bool, device=setting.device)
    for rows in position.split(256):
        mask[rows] = visible(rows[:, None], position[None, :])
    return mask


def by_head(attend: Attend) -> Attend:
    """Returns an engine that wants heads before positions as one that takes them as all others do."""

    def transposed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)).transpose(1, 2)

    return transposed


def why_no_fused(setting: Setting) -> str | None:
    """Returns why our fused kernels cannot run here, or None."""
    if setting.device != "cuda":
        return "runs on CUDA only"
    return None if find_spec("triton") else "triton is not installed"


def why_too_long(setting: Setting) -> str | None:
    """Returns why an engine that is not frugal is left out, or None."""
    longest = LONGEST_FOR_PEERS[setting.device]
    return f"would need many GiB beyond {longest:,} positions" if setting.positions > longest else None


def why_no_flex(setting: Setting) -> str | None:
    """Returns why FlexAttention cannot compute the setting, or None."""
    if setting.device == "cpu":
        return "has no backward on the CPU" if setting.backward else why_too_long(setting)
    return None


def why_no_hugging_face(setting: Setting) -> str | None:
    """Returns why Hugging Face's layer cannot compute the setting, or None."""
    if find_spec("transformers") is None:
        return "transformers is not installed"
    if setting.causal:
        return "is not causal"
    if setting.dilation != 1:
        return "has no dilation"
    if setting.window % 2 or setting.positions % setting.window:
        return "demands an even window that divides the positions"
    return why_too_long(setting)


def why_no_package(package: str, setting: Setting) -> str | None:
    """Returns why a FlashAttention of a package of its own cannot compute the setting, or None."""
    try:
        installed = find_spec(package) is not None
    except ModuleNotFoundError:
        installed = False
    return why_no_flash(setting) if installed else f"{package} is not installed"


ENGINES = (
    Engine(FUSED, ours("fused"), why_no_fused),
    Engine(BLOCKED, ours("blocked"), lambda setting: None),
    Engine("dense SDPA", dense, why_too_long),
    Engine(HUGGING_FACE, hugging_face, why_no_hugging_face),
    Engine("FlexAttention", flex, why_no_flex),
    Engine("FlashAttention-2", flash_attention_2, why_no_flash),
    Engine("FlashAttention-3", flash_attention_3, lambda setting: why_no_package("flash_attn_interface", setting)),
    Engine("FlashAttention-4", flash_attention_4, lambda setting: why_no_package("flash_attn.cute", setting)),
)
