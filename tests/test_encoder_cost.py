"""Claims: the memory estimate of encoders is near what the models keep, and grows in proportion to the length."""

from typing import Any

import pytest
import torch
from torch import nn

from longformer import models
from longformer.costs.encoder import encoder_memory


def kept_bytes(module: nn.Module, ids: torch.Tensor) -> int:
    """Return the bytes of distinct memory that forward keeps for backward, weights not counted."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(ids)
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("inner", [128, 512])
@pytest.mark.parametrize("name", ["Longformer", "LED"])
def test_the_estimate_is_near_what_the_layers_keep(name: str, inner: int, dropout: float) -> None:
    kept, estimated = [], []
    for layers in (2, 4):
        if name == "LED":
            config: Any = models.LEDConfig(
                vocab_size=50,
                d_model=64,
                encoder_layers=layers,
                decoder_layers=1,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=inner,
                decoder_ffn_dim=inner,
                attention_window=32,
                dropout=dropout,
            )
            encoder: Any = models.LEDModel(config).encoder
        else:
            config = models.LongformerConfig(
                vocab_size=50,
                hidden_size=64,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=inner,
                attention_window=32,
                max_position_embeddings=514,
                hidden_dropout_prob=dropout,
            )
            encoder = models.LongformerModel(config, add_pooling_layer=False)
        kept.append(kept_bytes(encoder.train(), torch.randint(3, 50, (1, 512))))
        estimated.append(encoder_memory(config, parameters=0, length=512).training)
    assert estimated[1] - estimated[0] == pytest.approx(kept[1] - kept[0], rel=0.05)


def test_memory_is_weights_and_a_share_for_every_token() -> None:
    config = models.LEDConfig()
    nothing, long, longer, longest = (
        encoder_memory(config, parameters=1000, length=length) for length in (0, 16_384, 32_768, 49_152)
    )
    assert nothing.reading == 4000
    assert longest.training - longer.training == longer.training - long.training
    assert longer.reading - long.reading == long.reading - nothing.reading
