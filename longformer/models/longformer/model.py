"""The Longformer encoder: any length, any windows, padding on either side, and no padding to a window."""

from collections.abc import Iterable
from typing import Any, TypedDict, cast

from torch import Tensor, nn

from longformer.attention.metadata import AttentionMetadata
from longformer.interop.families import LONGFORMER
from longformer.models.common.inputs import BatchFacts, EncoderTensors, read_inputs
from longformer.models.common.layer_stack import EncoderLayer, EncoderStack
from longformer.models.common.outputs import EncoderOutput
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.longformer.config import LongformerConfig
from longformer.models.longformer.layers import Embeddings, Layer, Pooler


class EncoderInputs(TypedDict, total=False):
    """Arguments of `LongformerModel.forward` that heads hand through."""

    token_type_ids: Tensor | None
    position_ids: Tensor | None
    inputs_embeds: Tensor | None
    document_ids: Tensor | None
    output_attentions: bool
    output_hidden_states: bool
    facts: BatchFacts | None


class Encoder(EncoderStack):
    """The stack of layers."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self,
        hidden: Tensor,
        tokens: AttentionMetadata,
        *,
        output_attentions: bool,
        output_hidden_states: bool,
        output_positions: Tensor | None = None,
    ) -> EncoderOutput:
        """Runs all layers; `hidden` may be packed, the result is not; see `EncoderStack.run_layers`."""
        return self.run_layers(
            cast(Iterable[EncoderLayer], self.layer),
            hidden,
            tokens,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_positions=output_positions,
        )


class LongformerModel(PretrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether to make one vector of the first token (`pooler_output`).
    """

    family = LONGFORMER
    is_bare = True

    def __init__(self, config: LongformerConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.initialise()

    def facts(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> BatchFacts:
        return EncoderTensors.of(
            self.config,
            input_ids=input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            document_ids=document_ids,
        ).facts(labels)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        facts: BatchFacts | None = None,
    ) -> EncoderOutput:
        """Encodes a batch of texts.

        Args:
            input_ids: (batch, positions) long; or give `inputs_embeds`, (batch, positions, hidden_size).
            attention_mask: (batch, positions), 1 = token, 0 = padding, on either side; None = all tokens.
            global_attention_mask: (batch, positions), 1 = attends to all tokens and is seen by all; None = none.
            token_type_ids: (batch, positions) long; None = all 0.
            position_ids: (batch, positions) long; None = counted from the first token on, padding left out.
            output_attentions: also return attention probabilities (slow, for inspection).
            output_hidden_states: also return what stands between the layers.
            output_positions: (count,) long, positions counted through the batch: where the last hidden state is
                wanted. It is (count, hidden_size) then, and the last layer leaves out what only the others need; not
                together with a pooling layer or `output_hidden_states`.
            document_ids: (batch, positions) long; neighbours that share one are of one document, and padding ends it.
                Tokens see their own document only, global ones too, and its default position ids count from its
                first token; what comes out at padding has no meaning. None = every row is one. Not together with
                `output_attentions`.
            facts: of the batch, see `PretrainedModel.facts`; None = they are read from the device, which waits for it.

        Raises:
            LongformerError: ids, positions or masks hold values that the model cannot take.
            ValueError: arguments do not fit together.
        """
        if output_positions is not None and (output_hidden_states or self.pooler is not None):
            raise ValueError("output_positions cannot be combined with output_hidden_states or a pooling layer")
        given = EncoderTensors.of(
            self.config,
            input_ids=input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            document_ids=document_ids,
        )
        inputs = read_inputs(self.config, given, facts, output_attentions=output_attentions)
        output: EncoderOutput = self.encoder(
            self.embeddings(inputs),
            inputs.tokens,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_positions=output_positions,
        )
        if self.pooler is not None:
            output.pooler_output = self.pooler(output.last_hidden_state, attention_mask)
        return output
