"""Claims: the memory of learning to summarize on a CPU is that of the model itself."""

from typing import Any

import pytest
import torch

from longformer.costs.memory import TrainingLayout
from longformer.costs.training import TrainingCost
from longformer.cpu import linear
from longformer.models import LEDConfig, LEDForConditionalGeneration
from longformer.models.common import token_loss
from longformer.training.objectives import Lengths
from tests.test_encoder_cost import kept_bytes

SOURCE, TARGET = 512, 64


def config_of(**changes: int | float | bool) -> LEDConfig:
    options: dict[str, Any] = {
        "vocab_size": 300, "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 192, "attention_window": 64,
        "max_encoder_position_embeddings": 600, "max_decoder_position_embeddings": 80, "dropout": 0.0,
    }  # fmt: skip
    return LEDConfig(**{**options, **changes})


def batch_of(rows: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 300, (rows, SOURCE))
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = 1
    return {"input_ids": ids, "global_attention_mask": is_global, "labels": torch.randint(3, 300, (rows, TARGET))}


def test_activations_are_near_what_autograd_keeps() -> None:
    model = LEDForConditionalGeneration(config_of(encoder_layers=4, decoder_layers=4)).train()
    batch = batch_of(4)

    class Learning(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = model(**{**batch, "input_ids": ids}).loss
            return loss

    cost = TrainingCost(model, [Lengths(SOURCE, TARGET)], lambda text: text.written, global_tokens=1)
    kept_all, kept_inputs = (
        cost.memory(
            TrainingLayout(4, 1, zero_stage=0, precision="fp32", activation_checkpointing=checkpointing)
        ).activations
        for checkpointing in (False, True)
    )
    # The hidden states in and around one layer and the logits are there only while backward is at work.
    tokens, inner = 4 * SOURCE, model.config.encoder_ffn_dim
    widening = 2 * tokens * 64 + 4 * min(linear.CHUNK, tokens) * inner + 5 * 64 * inner
    momentary = 4 * (4 * SOURCE * 64 + max(4 * SOURCE * 5 * 64, widening) + 2 * token_loss.CHUNK * 300)
    assert kept_all - momentary == pytest.approx(kept_bytes(Learning(), batch["input_ids"]), rel=0.15)
    model.gradient_checkpointing_enable()
    inputs = kept_bytes(Learning(), batch["input_ids"])
    assert inputs < kept_inputs - momentary < inputs + (kept_all - momentary) / 3, "inputs, and a layer of each kind"
