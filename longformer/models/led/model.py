"""LED under Hugging Face's names: the bare encoder-decoder, for writing texts, and for finding answers."""

from typing import Any, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from longformer.interop.families import LED
from longformer.models.common.inputs import BatchFacts, input_shape
from longformer.models.common.outputs import EncoderOutput
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.common.token_loss import IGNORED, TokenProjection, labelled, projected_loss
from longformer.models.led.cache import KeyValueCache
from longformer.models.led.config import LEDConfig
from longformer.models.led.decoder import LEDDecoder
from longformer.models.led.encoder import LEDEncoder
from longformer.models.led.generate import GeneratesText
from longformer.models.led.inputs import check_states, check_target
from longformer.models.led.outputs import LEDGenerationOutput, LEDOutput, LEDQuestionAnsweringOutput
from longformer.models.longformer.heads import span_loss


class LEDInputs(TypedDict, total=False):
    """Arguments of `LEDModel.forward` that heads hand through."""

    encoder_outputs: Any
    global_attention_mask: Tensor | None
    past_key_values: KeyValueCache | None
    inputs_embeds: Tensor | None
    decoder_inputs_embeds: Tensor | None
    use_cache: bool | None
    output_attentions: bool
    output_hidden_states: bool
    facts: BatchFacts | None


class LEDModel(PretrainedModel):
    """Encoder and decoder without a head."""

    family = LED
    is_bare = True

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.encoder = LEDEncoder(config)
        self.decoder = LEDDecoder(config)
        self.tie_weights()
        self.initialise()

    def tie_weights(self) -> None:
        if self.config.tie_word_embeddings:
            self.encoder.embed_tokens.weight = self.decoder.embed_tokens.weight = self.shared.weight

    def get_encoder(self) -> LEDEncoder:
        """Returns the encoder, whose output may be handed to the model as `encoder_outputs`."""
        return self.encoder

    def facts(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        global_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **_: Any,
    ) -> BatchFacts:
        if encoder_outputs is None and past_key_values is None:
            input_shape(
                input_ids, inputs_embeds, attention_mask=attention_mask, global_attention_mask=global_attention_mask
            )
        return BatchFacts.of(
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            input_ids=input_ids,
            labels=labels,
            target_mask=decoder_attention_mask,
            target_ids=decoder_input_ids,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        global_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        facts: BatchFacts | None = None,
    ) -> LEDOutput:
        """Reads source texts, and what has been written about them.

        Args:
            input_ids, attention_mask, global_attention_mask, inputs_embeds: as in `LEDEncoder.forward`.
            decoder_input_ids: (rows, positions) long; for every text one row, or several that follow each other.
                None: `input_ids`, each shifted right by one, as in Hugging Face.
            decoder_attention_mask: (rows, positions), 1 = token, 0 = padding, on either side; None = all tokens.
            encoder_outputs: what the encoder gave before, or a tuple that begins with its last hidden state; the
                source is then not read again.
            past_key_values: of `decoder.new_cache`; the decoder reads what follows the tokens it holds, and neither
                the source nor `encoder_outputs` are needed.
            decoder_inputs_embeds: (rows, positions, d_model), instead of decoder_input_ids.
            use_cache: True demands `past_key_values`, which alone decides whether tokens are cached.
            output_attentions: also return attention probabilities (slow, for inspection).
            output_hidden_states: also return what stands between the layers.
            facts: of these arguments, see `PretrainedModel.facts`; None = they are read from the device, which waits
                for it.

        Raises:
            LongformerError: ids or masks hold values that the model cannot take, or a text is too long.
            ValueError: arguments do not fit together.
        """
        if use_cache and past_key_values is None:
            raise ValueError(
                "use_cache needs a cache: give past_key_values=model.get_decoder().new_cache(...), or use generate"
            )
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if decoder_input_ids is None and decoder_inputs_embeds is None and input_ids is not None:
            decoder_input_ids = shift_tokens_right(input_ids, self.config)
        check_target(
            self.config,
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            cached=0 if past_key_values is None else past_key_values.length,
        )
        if facts is None:
            facts = self.facts(
                input_ids,
                attention_mask,
                decoder_input_ids,
                decoder_attention_mask,
                encoder_outputs,
                global_attention_mask,
                past_key_values,
                inputs_embeds,
            )
        facts.check_target(self.config.vocab_size)
        encoded = None
        if past_key_values is None:
            if encoder_outputs is None:
                encoder_outputs = self.encoder(
                    input_ids, attention_mask, global_attention_mask, inputs_embeds, **asked, facts=facts
                )
            is_ours = isinstance(encoder_outputs, EncoderOutput)
            encoded = encoder_outputs if is_ours else EncoderOutput(encoder_outputs[0])
            target = decoder_inputs_embeds if decoder_input_ids is None else decoder_input_ids
            check_states(encoded.last_hidden_state, attention_mask, cast(Tensor, target))
        decoded = self.decoder(
            decoder_input_ids,
            decoder_attention_mask if facts.target_padded else None,
            inputs_embeds=decoder_inputs_embeds,
            states=None if encoded is None else encoded.last_hidden_state,
            source_mask=attention_mask.bool() if attention_mask is not None and facts.padded else None,
            cache=past_key_values,
            **asked,
        )
        output = LEDOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
        )
        if encoded is not None:
            output.encoder_last_hidden_state = encoded.last_hidden_state
            output.encoder_hidden_states = encoded.hidden_states
            output.encoder_attentions = encoded.attentions
            output.encoder_global_attentions = encoded.global_attentions
        return output


class LEDWithHead(PretrainedModel):
    """The model as `led`, and a head that subclasses add before they call `initialise`."""

    family = LED

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config)
        self.led = LEDModel(config)

    def get_encoder(self) -> LEDEncoder:
        """Returns the encoder, whose output may be handed to the model as `encoder_outputs`."""
        return self.led.encoder

    def get_decoder(self) -> LEDDecoder:
        """Returns the decoder."""
        return self.led.decoder


class LEDForConditionalGeneration(LEDWithHead, GeneratesText):
    """Writes a text about a text; see `generate`."""

    final_logits_bias: Tensor

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config)
        self.lm_head = TokenProjection(config.d_model, config.vocab_size, bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))
        self.tie_weights()
        self.initialise()

    def tie_weights(self) -> None:
        self.led.tie_weights()
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.led.shared.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns (..., vocab_size) from what the decoder gave, (..., d_model)."""
        return self.lm_head(hidden) + self.final_logits_bias[0]

    def facts(self, *inputs: Any, labels: Tensor | None = None, **named: Any) -> BatchFacts:
        return self.led.facts(*inputs, labels=labels, **named)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        smoothing: float = 0.0,
        output_logits: bool | None = None,
        **inputs: Unpack[LEDInputs],
    ) -> LEDGenerationOutput:
        """Returns logits (rows, positions, vocab_size) and, given labels, the loss.

        Args:
            labels: (rows, positions) long, what is to be written, -100 where it does not count; the decoder reads
                them shifted right by one unless it is given something else.
            smoothing: label smoothing as in `masked_lm_loss`; only the loss changes. Transformers' Trainer takes every
                argument with "label" in its name for labels.
            output_logits: whether to compute the logits of all positions; None = only when no labels are given,
                because the loss needs but those of labelled positions, a few at a time.
            inputs: as in `LEDModel.forward`, as are the other arguments.
        """
        facts = inputs.pop("facts", None)
        if labels is not None:
            if facts is None:
                facts = self.facts(
                    input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, labels=labels, **inputs
                )
            facts.check_labels(self.config.vocab_size)
            if decoder_input_ids is None and inputs.get("decoder_inputs_embeds") is None:
                decoder_input_ids = shift_tokens_right(labels, self.config)
        result: LEDOutput = self.led(
            input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, facts=facts, **inputs
        )
        hidden = result.last_hidden_state
        loss = None
        if labels is not None and facts is not None:
            positions, targets = labelled(labels, hidden.shape[:2], facts.labelled)
            states = hidden.flatten(0, 1).index_select(0, positions)
            loss = projected_loss(self.lm_head, states, targets, self.final_logits_bias[0], label_smoothing=smoothing)
        wants_logits = labels is None if output_logits is None else output_logits
        return LEDGenerationOutput(loss, self.logits(hidden) if wants_logits else None, **result.trace())


class LEDForQuestionAnswering(LEDWithHead):
    """Finds the span of the decoder's text that answers a question."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.d_model, 2)
        self.initialise()

    def tie_weights(self) -> None:
        self.led.tie_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Unpack[LEDInputs],
    ) -> LEDQuestionAnsweringOutput:
        """Returns the logits of every position of the decoder to be the first and the last of the answer.

        Args:
            start_positions, end_positions: (rows,) long; a position beyond the text does not count.
            inputs: as in `LEDModel.forward`, as are the other arguments.
        """
        result: LEDOutput = self.led(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, **inputs)
        start_logits, end_logits = self.qa_outputs(result.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (span_loss(start_logits, start_positions) + span_loss(end_logits, end_positions)) / 2
        return LEDQuestionAnsweringOutput(loss, start_logits, end_logits, **result.trace())


def shift_tokens_right(ids: Tensor, config: LEDConfig) -> Tensor:
    """Returns the decoder input for target `ids`, (sequences, positions): its first token, then all but the last."""
    shifted = ids.roll(1, dims=1)
    shifted[:, 0] = config.decoder_start_token_id
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)
