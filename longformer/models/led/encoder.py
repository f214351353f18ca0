"""The encoder of an LED: any length, any windows, padding on either side and taken out before the layers."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from longformer.models.common.inputs import BatchFacts
from longformer.models.common.layer_stack import EncoderLayer, EncoderStack, drop_layers
from longformer.models.common.outputs import EncoderOutput
from longformer.models.led.config import LEDConfig
from longformer.models.led.inputs import read_source
from longformer.models.led.layers import LEDEncoderLayer, WordEmbeddings


class LEDEncoder(EncoderStack):
    """The stack of encoder layers on the sum of word and position embeddings."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = WordEmbeddings(config)
        self.embed_positions = nn.Embedding(config.max_encoder_position_embeddings, config.d_model)
        self.layers = nn.ModuleList(LEDEncoderLayer(config, index) for index in range(config.encoder_layers))
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model) if config.normalize_before else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        facts: BatchFacts | None = None,
    ) -> EncoderOutput:
        """Encodes a batch of texts; what comes out at padding has no meaning.

        Args:
            input_ids: (batch, positions) long; or give `inputs_embeds`, (batch, positions, d_model).
            attention_mask: (batch, positions), 1 = token, 0 = padding, on either side; None = all tokens.
            global_attention_mask: (batch, positions), 1 = attends to all tokens and is seen by all; None = none.
            output_attentions: also return attention probabilities (slow, for inspection).
            output_hidden_states: also return what stands between the layers.
            facts: of the batch, see `PretrainedModel.facts`; None = they are read from the device, which waits for it.

        Raises:
            LongformerError: ids or masks hold values that the model cannot take, or the text is too long.
            ValueError: arguments do not fit together.
        """
        tokens = read_source(
            self.config,
            input_ids=input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            inputs_embeds=inputs_embeds,
            facts=facts,
            output_attentions=output_attentions,
        )
        words = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        # Positions count padding in, as in Hugging Face.
        positions = self.embed_positions(torch.arange(words.shape[1], device=words.device))
        layers = cast(Iterable[EncoderLayer], self.layers)
        return self.run_layers(
            drop_layers(layers, self.config.encoder_layerdrop if self.training else 0.0),
            self.dropout(self.layernorm_embedding(tokens.pack(words + positions))),
            tokens,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            last_norm=self.layer_norm,
        )
