"""The border of an LED model: what a user hands in is checked here, once; behind it nothing waits for the device."""

from torch import Tensor

from longformer.attention.metadata import AttentionMetadata
from longformer.errors import LongformerError
from longformer.models.common.inputs import BatchFacts, describe_tokens, input_shape
from longformer.models.led.config import LEDConfig


def read_source(
    config: LEDConfig,
    *,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    global_attention_mask: Tensor | None,
    inputs_embeds: Tensor | None,
    facts: BatchFacts | None,
    output_attentions: bool,
) -> AttentionMetadata:
    """Checks what the encoder is to read and describes it; arguments as in `LEDEncoder.forward`.

    Raises:
        ValueError: neither or both of input_ids and inputs_embeds are given, or a shape does not fit.
        LongformerError: ids or masks hold values that the model cannot take, or the text is too long.
    """
    (_, positions), _ = input_shape(
        input_ids, inputs_embeds, attention_mask=attention_mask, global_attention_mask=global_attention_mask
    )
    longest = config.max_encoder_position_embeddings
    if positions > longest:
        raise LongformerError(
            f"the text has {positions} tokens, the encoder has positions for {longest}: shorten the text, "
            f"or convert the model to longer texts (longformer convert ... --max-length {positions})"
        )
    if facts is None:
        facts = BatchFacts.of(
            attention_mask=attention_mask, global_attention_mask=global_attention_mask, input_ids=input_ids
        )
    facts.check_masks()
    facts.check_ids(config.vocab_size)
    # Padded positions differ by their place, but nobody sees them: one of them may stand for all.
    return describe_tokens(attention_mask, global_attention_mask, None, facts, removable=not output_attentions)


def check_target(
    config: LEDConfig,
    *,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    inputs_embeds: Tensor | None,
    cached: int,
) -> None:
    """Checks the shape of what the decoder is to read; arguments as in `LEDDecoder.forward`, and its cached tokens.

    Raises:
        ValueError: neither or both of the ids and embeddings are given, or the mask does not fit.
        LongformerError: the text is too long.
    """
    shape, _ = input_shape(input_ids, inputs_embeds, prefix="decoder_")
    known, longest = cached + shape[1], config.max_decoder_position_embeddings
    if known > longest:
        raise LongformerError(
            f"the decoder is given {known} tokens, it has positions for {longest}: shorten what it is to write"
        )
    if attention_mask is not None and attention_mask.shape != (shape[0], known):
        raise ValueError(
            f"decoder_attention_mask must be (rows, positions), {(shape[0], known)}, got {tuple(attention_mask.shape)}"
        )


def check_states(states: Tensor, attention_mask: Tensor | None, target: Tensor) -> None:
    """Checks that the encoder's states, (rows, positions, d_model), go with their mask and with what the decoder reads.

    Raises:
        ValueError: they do not; the rows for the decoder must be as many or a multiple.
    """
    if attention_mask is not None and attention_mask.shape != states.shape[:2]:
        raise ValueError(
            f"attention_mask must be (batch, positions) as in encoder_outputs, {tuple(states.shape[:2])}, "
            f"got {tuple(attention_mask.shape)}"
        )
    if target.shape[0] % states.shape[0]:
        raise ValueError(f"{target.shape[0]} rows for the decoder do not go with {states.shape[0]} source texts")
