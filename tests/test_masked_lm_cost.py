"""Claims: the parameters of continued pretraining are those of the model itself."""

from typing import Any

import pytest
import torch

from longformer.costs.masked_lm import global_projections, parameter_count, trained_count
from longformer.models import LongformerForMaskedLM
from longformer.models.longformer.config import LongformerConfig


@pytest.mark.parametrize("changes", [{}, {"type_vocab_size": 1, "hidden_size": 24}, {"tie_word_embeddings": False}])
def test_parameters_are_those_of_the_model(changes: dict[str, int | bool]) -> None:
    options: dict[str, Any] = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    options |= {"intermediate_size": 40, "max_position_embeddings": 70, "attention_window": 8}
    config = LongformerConfig(**{**options, **changes})
    with torch.device("meta"):
        model = LongformerForMaskedLM(config)
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count(config) == everything
    assert trained_count(config) == everything - sum(each.numel() for each in global_projections(model))
