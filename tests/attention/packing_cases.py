"""Packed sequences for tests: counted in plain loops, and attended to one by one."""

from typing import Any

import torch
from torch import Tensor

from longformer.attention import banded_attention
from longformer.attention.metadata import AttentionMetadata, GlobalTokens, Packing


def packing_of(token_mask: Tensor, document_ids: Tensor | None = None) -> Packing:
    """Pack a batch; a sequence ends where padding begins or the document changes."""
    is_first, lengths = torch.zeros_like(token_mask), []
    for row in range(token_mask.shape[0]):
        before = None
        for position in range(token_mask.shape[1]):
            now = None
            if token_mask[row, position]:
                now = 0 if document_ids is None else int(document_ids[row, position])
                if now != before:
                    is_first[row, position] = True
                    lengths.append(0)
                lengths[-1] += 1
            before = now
    numbers = {"tokens": sum(lengths), "sequences": len(lengths), "max_seqlen": max(lengths)}
    return Packing.of(token_mask, is_first, **numbers)


def packed_metadata(
    token_mask: Tensor, global_mask: Tensor | None, document_ids: Tensor | None = None
) -> AttentionMetadata:
    """Describe a batch without its padding."""
    packing, global_tokens = packing_of(token_mask, document_ids), None
    if global_mask is not None:
        global_tokens = GlobalTokens.find(packing.pack(global_mask)[None], packing.cu_seqlens)
    return AttentionMetadata(None, global_tokens, packing)


def one_by_one(
    inputs: list[Tensor], lengths: list[int], options: dict[str, Any], arriving: Tensor, backend: str
) -> list[Tensor]:
    """Return output and gradients of attention called for every sequence alone, in float64; 0 behind the last."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in inputs]
    options, global_mask = dict(options), options.get("global_mask")
    outputs, start = [], 0
    for length in lengths:
        cut = slice(start, start + length)
        if global_mask is not None:
            options["global_mask"] = global_mask[None, cut]
        query, key, value, *relative = (tensor[None, cut] for tensor in leaves[:4])
        if relative:
            options |= {"relative_query": relative[0], "relative_key": leaves[4]}
        outputs.append(banded_attention(query, key, value, **options, backend=backend)[0])
        start += length
    outputs.append(torch.zeros_like(leaves[0][start:]))
    output = torch.cat(outputs)
    # What touches no leaf has no gradient, which is 0.
    gradients = torch.autograd.grad(output, leaves, arriving.double(), allow_unused=True, materialize_grads=True)
    return [output.detach(), *gradients]


def packed(
    inputs: list[Tensor], lengths: list[int], options: dict[str, Any], arriving: Tensor, backend: str
) -> list[Tensor]:
    """Return output and gradients of one call for all sequences."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    relative = dict(zip(("relative_query", "relative_key"), leaves[3:], strict=False))
    behind = inputs[0].shape[0] - sum(lengths)
    bounds = torch.tensor([0, *lengths], device=inputs[0].device).cumsum(0, dtype=torch.int32)
    output = banded_attention(
        *leaves[:3], **relative, **options, cu_seqlens=bounds, max_seqlen=max([1, behind, *lengths]), backend=backend
    )
    return [output.detach(), *torch.autograd.grad(output, leaves, arriving)]
