"""Our attention equals Hugging Face's LongformerSelfAttention wherever its rows are local.

Global rows use projections of their own there; they are the layer's business, so only local rows are compared.
"""

import pytest
import torch

from longformer.attention import banded_attention

transformers = pytest.importorskip("transformers", reason="parity needs transformers")
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention  # noqa: E402

BATCH, HEADS, HEAD_DIM, WINDOW = 2, 3, 8, 16
POSITIONS = 6 * WINDOW


@pytest.mark.parametrize("padded", [0, 1, 37])
@pytest.mark.parametrize("global_positions", [[], [0], [0, 5, 6, 40, 58]])
def test_local_rows_and_their_gradients_equal_hugging_face(padded: int, global_positions: list[int]) -> None:
    torch.manual_seed(0)
    hidden_size = HEADS * HEAD_DIM
    layer = LongformerSelfAttention(
        transformers.LongformerConfig(
            hidden_size=hidden_size,
            num_attention_heads=HEADS,
            attention_window=[WINDOW],
            num_hidden_layers=1,
            attention_probs_dropout_prob=0.0,
        ),
        layer_id=0,
    )
    hidden = torch.randn(BATCH, POSITIONS, hidden_size, requires_grad=True)
    real = torch.ones(BATCH, POSITIONS, dtype=torch.bool)
    real[1, POSITIONS - padded :] = False
    is_global = torch.zeros_like(real)
    is_global[:, global_positions] = True
    is_global &= real

    # Their merged mask: below 0 padding, 0 local, above 0 global.
    merged = torch.where(real, is_global.float(), torch.tensor(-10000.0))
    theirs = layer(
        hidden,
        attention_mask=merged,
        is_index_masked=merged < 0,
        is_index_global_attn=merged > 0,
        is_global_attn=bool(is_global.any()),
    )[0].view(BATCH, POSITIONS, HEADS, HEAD_DIM)

    query, key, value = (
        projection(hidden).view(BATCH, POSITIONS, HEADS, HEAD_DIM)
        for projection in (layer.query, layer.key, layer.value)
    )
    ours = banded_attention(
        query, key, value, left=WINDOW // 2, right=WINDOW // 2, token_mask=real, global_mask=is_global
    )
    local = ~is_global
    torch.testing.assert_close(ours[local], theirs[local], rtol=0, atol=1e-5)

    gradient = torch.randn_like(theirs) * local[:, :, None, None]
    parameters = [hidden, *(p for name in ("query", "key", "value") for p in getattr(layer, name).parameters())]
    for our_gradient, their_gradient in zip(
        torch.autograd.grad(ours, parameters, gradient),
        torch.autograd.grad(theirs, parameters, gradient),
        strict=True,
    ):
        largest = their_gradient.abs().max().clamp(min=1)
        assert (our_gradient - their_gradient).abs().max() <= 1e-5 * largest
