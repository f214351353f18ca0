"""Claims: parameters, operations and memory of learning to summarize are those of the model itself."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop

from longformer.costs.led import training_flops, training_memory
from longformer.costs.memory import TrainingLayout, Weights
from longformer.cpu import linear
from longformer.models import LEDConfig, LEDForConditionalGeneration
from longformer.models.common import token_loss
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


def test_operations_are_near_those_counted_by_pytorch() -> None:
    # The counter sees into no attention: the encoder's has the narrowest window here, the decoder's is added.
    model = LEDForConditionalGeneration(config_of(attention_window=2))
    pairs = model.config.decoder_layers * (TARGET * SOURCE + TARGET**2 / 2)
    attention = 3 * 4 * model.config.d_model * pairs
    # Nor into oneDNN's products, nor into sums of products in place.
    in_place = {torch.ops.aten.addmm_: lambda _, left, right, *rest, **options: mm_flop(left, right)}
    with (
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False, custom_mapping=in_place) as counter,
    ):
        model(**batch_of(1)).loss.backward()
    # Counted by PyTorch and not useful: the logits that backward computes again, and the wide rows.
    shape = model.config
    again = (
        shape.encoder_layers * SOURCE * shape.encoder_ffn_dim + shape.decoder_layers * TARGET * shape.decoder_ffn_dim
    )
    counted = counter.get_total_flops() + attention - 2 * shape.d_model * again
    assert training_flops(model.config, SOURCE, target_length=TARGET) == pytest.approx(counted, rel=0.05)


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

    kept_all, kept_inputs = (
        training_memory(
            model.config,
            TrainingLayout(
                micro_batch_size=4, ranks=1, zero_stage=0, precision="fp32", activation_checkpointing=checkpointing
            ),
            Weights.of(model),
            source_length=SOURCE,
            target_length=TARGET,
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
