"""Global attention: global tokens attend to the whole sequence through projections of their own (semantics.md 1.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from longformer.attention.fused import fused_global_attention
from longformer.attention.metadata import AttentionMetadata, GlobalTokens
from longformer.attention.op import engine_name


def global_attention(
    hidden: Tensor,
    global_tokens: GlobalTokens,
    metadata: AttentionMetadata,
    *,
    query: nn.Linear,
    key: nn.Linear,
    value: nn.Linear,
    heads: int,
    dropout: float,
    backend: str,
) -> Tensor:
    """Attends from every global token to all tokens.

    With few global tokens the projections of keys and values are absorbed: (Q Wk) X^T and (P X) Wv give the same
    as Q (X Wk)^T and P (X Wv) without projecting every position. That costs 4 * count * heads * width operations
    per position instead of 4 * width^2 and a little more. Measured forward and backward on a CPU (width 768, 12
    heads), 1 global token takes 1/8 of the time, 48 take 5/6 and 64 take 4/3: the limit is count * heads = 3/4 width.
    With more of them the fused kernels, where they run, split the keys among programs and merge what these found.

    Args:
        hidden: (batch, positions, width), the layer's input.
        global_tokens: who attends; free slots give numbers without meaning.
        metadata: padding and global tokens of the batch.
        query, key, value: the global projections, width to width.
        dropout: probability of dropping an attention probability.
        backend: engine of `banded_attention`.

    Returns:
        (batch, count, width).
    """
    queries = query(global_tokens.gather(hidden)).unflatten(-1, (heads, -1))
    count, width = queries.shape[1], hidden.shape[2]
    if is_plain(key) and is_plain(value) and 4 * count * heads <= 3 * width:
        return _absorbed(queries, hidden, metadata.token_mask, key, value, dropout)
    keys, values = key(hidden).unflatten(-1, (heads, -1)), value(hidden).unflatten(-1, (heads, -1))
    scale = queries.shape[-1] ** -0.5
    if engine_name(backend, queries, scale, relative=False) == "fused":
        attended = fused_global_attention(queries, keys, values, scale=scale, dropout=dropout, layout=metadata.layout)
        return attended.flatten(2)
    mask = None if metadata.token_mask is None else metadata.token_mask[:, None, None, :]
    queries, keys, values = (tensor.transpose(1, 2) for tensor in (queries, keys, values))
    attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2)


def is_plain(projection: nn.Linear) -> bool:
    """Returns whether the weights of a projection tell all, and can be read before it is called.

    Adapters stand in for it and add to what it gives; what shards it makes its weights whole when it is called.
    """
    return type(projection) is nn.Linear and not projection._forward_pre_hooks


def global_probabilities(
    hidden: Tensor,
    global_tokens: GlobalTokens,
    token_mask: Tensor | None,
    *,
    query: nn.Linear,
    key: nn.Linear,
    heads: int,
) -> Tensor:
    """Returns what every global token pays attention to, (batch, heads, positions, count); 0 in free slots."""
    queries = query(global_tokens.gather(hidden)).unflatten(-1, (heads, -1))
    probabilities = _probabilities(queries, hidden, token_mask, key)
    return (probabilities * global_tokens.is_real[:, :, None, None]).permute(0, 2, 3, 1).to(hidden.dtype)


def _absorbed(
    queries: Tensor, hidden: Tensor, token_mask: Tensor | None, key: nn.Linear, value: nn.Linear, dropout: float
) -> Tensor:
    """Attends from (batch, count, heads, head_dim) without projecting `hidden`."""
    heads = queries.shape[2]
    probabilities = functional.dropout(_probabilities(queries, hidden, token_mask, key), dropout).to(hidden.dtype)
    mixed = torch.matmul(probabilities.flatten(1, 2), hidden).unflatten(1, (-1, heads))
    attended = torch.einsum("bghe,hde->bghd", mixed, value.weight.unflatten(0, (heads, -1)))
    # After dropout the probabilities of a row no longer sum to one.
    bias = probabilities.sum(-1, keepdim=True) * value.bias.unflatten(0, (heads, -1))
    return (attended + bias).flatten(2)


def _probabilities(queries: Tensor, hidden: Tensor, token_mask: Tensor | None, key: nn.Linear) -> Tensor:
    """Returns (batch, count, heads, positions) in float32 or better."""
    heads, head_dim = queries.shape[2:]
    queries = queries * head_dim**-0.5
    absorbed = torch.einsum("bghd,hde->bghe", queries, key.weight.unflatten(0, (heads, -1)))
    # The key's bias shifts all scores of a row alike; it stays so that every parameter has its gradient (zero).
    shift = (queries * key.bias.unflatten(0, (heads, -1))).sum(-1, keepdim=True)
    scores = torch.matmul(absorbed.flatten(1, 2), hidden.transpose(1, 2)).unflatten(1, (-1, heads)) + shift
    if token_mask is not None:
        scores = scores.masked_fill(~token_mask[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
