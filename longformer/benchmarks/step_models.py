"""The models whose training step is measured: shapes as published, random weights, ours and Hugging Face's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longformer.benchmarks.published_shapes import LED_BASE, LONGFORMER_BASE

OURS, HUGGING_FACE, ROBERTA = "ours", "Hugging Face", "RoBERTa"
# As many positions as RoBERTa has.
LONGEST_FOR_ROBERTA = 512
LABELLED = 0.15


def contenders(model: str, positions: int) -> list[str]:
    """Returns who competes; RoBERTa stands beside Longformer where a text is short enough for it."""
    if model == "longformer-base" and positions <= LONGEST_FOR_ROBERTA:
        return [OURS, HUGGING_FACE, ROBERTA]
    return [OURS, HUGGING_FACE]


def training_loss(model: str, contender: str, positions: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Returns a model in training mode, dropout as published, and what computes its loss on one random text."""
    torch.manual_seed(0)
    input_ids = torch.randint(3, 50_000, (1, positions))
    if model == "led-base-encoder":
        encoder = led_encoder(contender).train()
        return encoder, lambda: encoder(input_ids=input_ids).last_hidden_state.square().mean()
    labels = torch.where(torch.rand(1, positions) < LABELLED, input_ids, -100)
    masked_lm = masked_language_model(contender).train()
    return masked_lm, lambda: masked_lm(input_ids=input_ids, labels=labels).loss


def led_encoder(contender: str) -> nn.Module:
    """Returns the encoder of an LED."""
    if contender == OURS:
        from longformer.models import LEDConfig
        from longformer.models.led.encoder import LEDEncoder

        return LEDEncoder(LEDConfig(**LED_BASE))
    from transformers import LEDConfig as TheirConfig
    from transformers.models.led.modeling_led import LEDEncoder as TheirEncoder

    return TheirEncoder(TheirConfig(**LED_BASE))


def masked_language_model(contender: str) -> nn.Module:
    """Returns a masked language model of the shape of Longformer-base."""
    if contender == OURS:
        from longformer.models import LongformerConfig, LongformerForMaskedLM

        return LongformerForMaskedLM(LongformerConfig(**LONGFORMER_BASE))
    import transformers

    if contender == ROBERTA:
        return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**LONGFORMER_BASE))
    return transformers.LongformerForMaskedLM(transformers.LongformerConfig(**LONGFORMER_BASE))
