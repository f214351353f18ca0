"""The competitors of the attention benchmark, each a function from query, key and value to the attended values.

All of them compute the same thing from the same tensors (batch, positions, heads, head_dim); projections are
left out, so what is measured is the attention part alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention import Band, banded_attention

OURS = "ours (blocked)"
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# Beyond this the peers need many GiB: dense attention for its mask, Hugging Face's layer for its copies.
LONGEST_FOR_PEERS = 16_384


@dataclass(frozen=True)
class Setting:
    """What is attended to. `window` counts as in the paper: both sides together, or the look-back when causal."""

    positions: int
    heads: int
    head_dim: int
    window: int
    dilation: int
    global_tokens: int
    causal: bool
    backward: bool

    @property
    def band(self) -> Band:
        """The band that the window stands for."""
        side = self.window if self.causal else self.window // 2
        return Band(left=side, right=0 if self.causal else side, dilation=self.dilation)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return random query, key and value, and the gradient of the output."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.positions, self.heads, self.head_dim)
        query, key, value, gradient = (torch.randn(shape, generator=generator) for _ in range(4))
        return (
            query.requires_grad_(self.backward),
            key.requires_grad_(self.backward),
            value.requires_grad_(self.backward),
            gradient,
        )

    def global_mask(self) -> Tensor | None:
        """Return the mask of the first `global_tokens` positions, or None without any."""
        if self.global_tokens == 0:
            return None
        return (torch.arange(self.positions) < self.global_tokens)[None]

    def run(self, attend: Attend, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """Do what is measured: attend, and find the gradients when the setting says so."""
        query, key, value, gradient = inputs
        if self.backward:
            torch.autograd.grad(attend(query, key, value), (query, key, value), gradient)
        else:
            with torch.no_grad():
                attend(query, key, value)


def engines(setting: Setting) -> dict[str, Callable[[Setting], Attend]]:
    """Return what builds each engine that can compute `setting`, ours first."""
    found: dict[str, Callable[[Setting], Attend]] = {OURS: ours}
    if setting.positions > LONGEST_FOR_PEERS:
        return found
    found["dense SDPA"] = dense
    symmetric = setting.dilation == 1 and not setting.causal and setting.window % 2 == 0
    if find_spec("transformers") is not None and symmetric and setting.positions % setting.window == 0:
        found["Hugging Face"] = hugging_face
    return found


def ours(setting: Setting) -> Attend:
    """Return our portable engine."""
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
            backend="blocked",
        )

    return attend


def dense(setting: Setting) -> Attend:
    """Return PyTorch's scaled_dot_product_attention with a dense mask of the band."""
    mask = dense_mask(setting)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)

    return attend


def dense_mask(setting: Setting) -> Tensor:
    """Return which keys (columns) every query (row) sees, built in strips so that only the mask itself is large."""
    band, position = setting.band, torch.arange(setting.positions)
    mask = torch.empty(setting.positions, setting.positions, dtype=torch.bool)
    for rows in position.split(256):
        distance = position - rows[:, None]
        steps = distance.div(band.dilation, rounding_mode="floor")
        visible = (steps * band.dilation == distance) & (steps >= -band.left) & (steps <= band.right)
        is_global = (position < setting.global_tokens) & (distance <= 0 if setting.causal else True)
        mask[rows] = visible | is_global
    return mask


class Given(nn.Module):
    """Stands for a projection whose result is already there; a copy, as the layer scales its query in place."""

    def __init__(self) -> None:
        super().__init__()
        self.result = torch.empty(0)

    def forward(self, hidden: Tensor) -> Tensor:
        # The layer projects (positions, batch, hidden), of global tokens the first positions alone.
        return self.result.transpose(0, 1)[: hidden.shape[0]].clone()


def hugging_face(setting: Setting) -> Attend:
    """Return the attention part of Hugging Face's LongformerSelfAttention, its projections taken as done.

    With global tokens the layer also computes the rows of the global queries; ours leaves these to its layer.
    """
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    hidden_size = setting.heads * setting.head_dim
    config = LongformerConfig(
        hidden_size=hidden_size,
        num_attention_heads=setting.heads,
        attention_window=[setting.window],
        num_hidden_layers=1,
        attention_probs_dropout_prob=0.0,
    )
    layer = LongformerSelfAttention(config, layer_id=0)
    for name in ("query", "key", "value"):
        setattr(layer, name, Given())
        if setting.global_tokens:
            setattr(layer, f"{name}_global", getattr(layer, name))
    hidden = torch.zeros(1, setting.positions, hidden_size)
    is_global = setting.global_mask()
    is_global = torch.zeros(1, setting.positions, dtype=torch.bool) if is_global is None else is_global

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        layer.query.result, layer.key.result, layer.value.result = (tensor.flatten(2) for tensor in (query, key, value))
        output = layer(
            hidden,
            attention_mask=is_global.float(),
            is_index_masked=torch.zeros_like(is_global),
            is_index_global_attn=is_global,
            is_global_attn=setting.global_tokens > 0,
        )[0]
        return output.view_as(query)

    return attend
