"""The decoder of an LED, for whole texts and for writing them token by token with a memory."""

from typing import cast

import torch
from torch import Tensor, nn

from longformer.models.common.layer_stack import LayerStack, drop_layers
from longformer.models.led.attention import looking_back
from longformer.models.led.cache import DecoderMemory
from longformer.models.led.config import LEDConfig
from longformer.models.led.layers import DecoderView, LEDDecoderLayer, WordEmbeddings
from longformer.models.led.outputs import DecoderOutput


class LEDDecoder(LayerStack):
    """The stack of decoder layers on the embeddings of the tokens so far."""

    def __init__(self, config: LEDConfig) -> None:
        super().__init__()
        self.embed_tokens = WordEmbeddings(config)
        self.embed_positions = nn.Embedding(config.max_decoder_position_embeddings, config.d_model)
        self.layers = nn.ModuleList(LEDDecoderLayer(config) for _ in range(config.decoder_layers))
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model) if config.normalize_before else None
        self.dropout = nn.Dropout(config.dropout)
        self.layerdrop = config.decoder_layerdrop

    def remember(self, states: Tensor, source_mask: Tensor | None) -> DecoderMemory:
        """Return a memory of documents and of no tokens.

        Args:
            states: of the encoder, (documents, source positions, d_model).
            source_mask: (documents, source positions) bool, False for padding; None: there is none.
        """
        return DecoderMemory([layer.encoder_attn.read(states).contiguous() for layer in self._layers()], source_mask)

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        states: Tensor | None = None,
        source_mask: Tensor | None = None,
        memory: DecoderMemory | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> DecoderOutput:
        """Read the tokens so far, or only those that follow what a memory holds, which then holds them too.

        Values are not checked here and nothing waits for the device; `LEDModel.forward` is the border.

        Args:
            input_ids: (rows, positions) long; or give `inputs_embeds`, (rows, positions, d_model).
            attention_mask: (rows, positions, remembered ones included), 0 for padding; None: there is none.
            states: of the encoder, (rows, source positions, d_model), unless there is a memory.
            source_mask: (rows, source positions) bool, False for padding; None: there is none.
            memory: of `remember`.
        """
        words = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        start, positions = 0 if memory is None else memory.length, words.shape[1]
        places = torch.arange(start, start + positions, device=words.device)
        hidden = self.dropout(self.layernorm_embedding(words + self.embed_positions(places)))
        source_mask = source_mask if memory is None else memory.source_mask
        causal = attention_mask is None and start == 0
        view = DecoderView(
            None if causal else visible_target(attention_mask, positions, start + positions, words.device),
            causal,
            None if source_mask is None else source_mask[:, None, None, :],
        )
        if memory is None and output_attentions:
            # Attentions are shown by the layers' steps, which want a memory; this one is forgotten afterwards.
            memory = self.remember(cast(Tensor, states), source_mask)
        shown, attentions = [], []
        for index, layer in drop_layers(enumerate(self._layers()), self.layerdrop if self.training else 0.0):
            if output_hidden_states:
                shown.append(hidden)
            if memory is None:
                hidden = self.run_layer(layer, hidden, view, states)
            else:
                hidden, known, seen = layer.step(
                    hidden, view, memory.source[index], memory.target[index], output_attentions=output_attentions
                )
                memory.target[index] = known
                attentions.append(seen)
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden)
        output = DecoderOutput(hidden)
        if output_hidden_states:
            output.hidden_states = (*shown, hidden)
        if output_attentions:
            output.attentions, output.cross_attentions = zip(
                *cast(list[tuple[Tensor, Tensor]], attentions), strict=True
            )
        return output

    def _layers(self) -> list[LEDDecoderLayer]:
        return cast(list[LEDDecoderLayer], list(self.layers))


def visible_target(attention_mask: Tensor | None, positions: int, known: int, device: torch.device) -> Tensor | None:
    """Return `visible` of `DecoderSelfAttention.forward` for the last positions of all known ones.

    A padded position that sees no token sees itself, so that no row sees nothing.
    """
    if attention_mask is None and positions == 1:
        return None
    visible = looking_back(positions, known, device)
    if attention_mask is None:
        return visible
    itself = visible.triu(known - positions)
    visible = visible & attention_mask.bool()[:, None, None, :]
    return visible | (itself & ~visible.any(-1, keepdim=True))
