"""Hugging Face's LongformerSelfAttention as a competitor: its attention part alone."""

import torch
from torch import Tensor, nn

from longformer.benchmarks.setting import Attend, Setting


class Given(nn.Module):
    """Stands for a projection whose result is already there; a copy, as the layer scales its query in place."""

    def __init__(self) -> None:
        super().__init__()
        self.result = torch.empty(0)

    def forward(self, hidden: Tensor) -> Tensor:
        # The layer projects (positions, batch, hidden); for the queries of global tokens any rows cost the same.
        return self.result.transpose(0, 1)[: hidden.shape[0]].clone()


def hugging_face(setting: Setting) -> Attend:
    """Returns the attention part of Hugging Face's LongformerSelfAttention, its projections taken as done.

    With global tokens the layer also computes the rows of the global queries, from queries that are not theirs; ours
    leaves these rows to its layer.
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
    dtype = getattr(torch, setting.dtype)
    hidden = torch.zeros(setting.batch, setting.positions, hidden_size, device=setting.device, dtype=dtype)
    is_global = setting.global_mask()
    if is_global is None:
        is_global = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=setting.device)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        layer.query.result, layer.key.result, layer.value.result = (tensor.flatten(2) for tensor in (query, key, value))
        output = layer(
            hidden,
            attention_mask=is_global.to(dtype),
            is_index_masked=torch.zeros_like(is_global),
            is_index_global_attn=is_global,
            is_global_attn=setting.global_tokens > 0,
        )[0]
        return output.view_as(query)

    return attend
