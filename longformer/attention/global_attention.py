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
        hidden: (batch, positions, width), or (packed, width) where `metadata` has a packing: the layer's input.
        global_tokens: who attends; free slots give numbers without meaning.
        metadata: padding, sequences and global tokens of the batch.
        query, key, value: the global projections, width to width.
        dropout: probability of dropping an attention probability.
        backend: engine of `banded_attention`.

    Returns:
        (sequences, count, width).
    """
    queries = query(global_tokens.gather(hidden)).unflatten(-1, (heads, -1))
    scale = queries.shape[-1] ** -0.5
    is_fused = engine_name(backend, queries, scale, relative=False) == "fused"
    count, visible, packing = queries.shape[1], metadata.token_mask, metadata.packing
    if packing is not None and not is_fused and packing.is_even:
        hidden, visible = packing.by_sequence(hidden)
    elif packing is not None:
        # The global tokens of all sequences are compared with every token.
        count, visible = queries.shape[0] * count, packing.members
    if is_plain(key) and is_plain(value) and 4 * count * heads <= 3 * hidden.shape[-1]:
        return _absorbed(queries, hidden, visible, key, value, dropout)
    keys, values = (project(hidden).unflatten(-1, (heads, -1)) for project in (key, value))
    if is_fused:
        if packing is not None:
            keys, values = keys[None], values[None]
        attended = fused_global_attention(queries, keys, values, scale=scale, dropout=dropout, layout=metadata.layout)
        return attended.flatten(2)
    mask = None if visible is None else visible[:, None, None, :]
    queries, keys, values = (tensor.transpose(-3, -2) for tensor in (queries, keys, values))
    keys, values = (tensor.expand(queries.shape[0], *tensor.shape[-3:]) for tensor in (keys, values))
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
    queries: Tensor, hidden: Tensor, visible: Tensor | None, key: nn.Linear, value: nn.Linear, dropout: float
) -> Tensor:
    """Attends from (sequences, count, heads, head_dim) without projecting `hidden`; see `_probabilities`."""
    heads = queries.shape[2]
    probabilities = functional.dropout(_probabilities(queries, hidden, visible, key), dropout).to(hidden.dtype)
    mixed = torch.matmul(probabilities.flatten(1, 2), hidden).unflatten(1, (-1, heads))
    attended = torch.einsum("bghe,hde->bghd", mixed, value.weight.unflatten(0, (heads, -1)))
    # After dropout the probabilities of a row no longer sum to one.
    bias = probabilities.sum(-1, keepdim=True) * value.bias.unflatten(0, (heads, -1))
    return (attended + bias).flatten(2)


def _probabilities(queries: Tensor, hidden: Tensor, visible: Tensor | None, key: nn.Linear) -> Tensor:
    """Returns (sequences, count, heads, positions) in float32 or better.

    Args:
        queries: (sequences, count, heads, head_dim).
        hidden: (sequences, positions, width), or (positions, width) for all of them.
        visible: (sequences, positions) bool, False for what is hidden; None: nothing is.
        key: the projection of the keys.
    """
    heads, head_dim = queries.shape[2:]
    queries = queries * head_dim**-0.5
    absorbed = torch.einsum("bghd,hde->bghe", queries, key.weight.unflatten(0, (heads, -1)))
    # The key's bias shifts all scores of a row alike; it stays so that every parameter has its gradient (zero).
    shift = (queries * key.bias.unflatten(0, (heads, -1))).sum(-1, keepdim=True)
    scores = torch.matmul(absorbed.flatten(1, 2), hidden.transpose(-2, -1)).unflatten(1, (-1, heads)) + shift
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
