"""What LED models return, under Hugging Face's names and in its order; absent values do not count."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from longformer.models.common.outputs import ModelOutput
from longformer.models.led.cache import KeyValueCache


@dataclass
class DecoderOutput(ModelOutput):
    """Result of `LEDDecoder`."""

    last_hidden_state: Tensor
    """(rows, positions, d_model)."""
    hidden_states: tuple[Tensor, ...] | None = None
    """On request: the embeddings and the result of every layer, each (rows, positions, d_model)."""
    attentions: tuple[Tensor, ...] | None = None
    """On request, per layer: (rows, heads, positions, known positions)."""
    cross_attentions: tuple[Tensor, ...] | None = None
    """On request, per layer: (rows, heads, positions, source positions)."""


@dataclass
class Trace(ModelOutput):
    """What is known of encoder and decoder behind a result; those on request are as in their own outputs."""

    past_key_values: KeyValueCache | None = None
    """The cache that was passed in, now with the tokens of this call."""
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    """(documents, source positions, d_model); at padding without meaning."""
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    encoder_global_attentions: tuple[Tensor, ...] | None = None

    def trace(self) -> dict[str, Any]:
        """Returns these values by name, for the output of a head."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Trace)}


@dataclass
class LastHiddenState(ModelOutput):
    """The result proper of `LEDModel`."""

    last_hidden_state: Tensor
    """Of the decoder, (rows, positions, d_model)."""


@dataclass
class LossAndLogits(ModelOutput):
    """The result proper of `LEDForConditionalGeneration`."""

    loss: Tensor | None = None
    """(), there when labels were given."""
    logits: Tensor | None = None
    """(rows, positions, vocab_size)."""


@dataclass
class LossAndSpan(ModelOutput):
    """The result proper of `LEDForQuestionAnswering`."""

    loss: Tensor | None = None
    """(), there when both positions were given."""
    start_logits: Tensor | None = None
    """(rows, positions of the decoder)."""
    end_logits: Tensor | None = None
    """(rows, positions of the decoder)."""


# The fields of the last base come first: the result, then what is known behind it.
@dataclass
class LEDOutput(Trace, LastHiddenState):
    """Result of `LEDModel`."""


@dataclass
class LEDGenerationOutput(Trace, LossAndLogits):
    """Result of `LEDForConditionalGeneration`."""


@dataclass
class LEDQuestionAnsweringOutput(Trace, LossAndSpan):
    """Result of `LEDForQuestionAnswering`."""
