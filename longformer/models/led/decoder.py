"""The decoder of an LED, for whole texts and for writing them token by token with a cache of keys and values."""

from typing import cast

import torch
from torch import Tensor, nn

from longformer.models.common.layer_stack import LayerStack, drop_layers
from longformer.models.led.attention import KeyValue, causal_mask
from longformer.models.led.cache import KeyValueCache
from longformer.models.led.config import LEDConfig
from longformer.models.led.layers import DecoderMasks, LEDDecoderLayer, WordEmbeddings
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

    def new_cache(self, states: Tensor, source_mask: Tensor | None) -> KeyValueCache:
        """Returns a cache that holds the documents and no tokens yet.

        Args:
            states: of the encoder, (documents, source positions, d_model).
            source_mask: (documents, source positions) bool, False for padding; None: there is none.
        """
        return KeyValueCache(
            [layer.encoder_attn.key_values(states).contiguous() for layer in self._layers()], source_mask
        )

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        states: Tensor | None = None,
        source_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> DecoderOutput:
        """Reads the tokens so far, or only those that follow the tokens of a cache, which then holds them too.

        Values are not checked here and nothing waits for the device; `LEDModel.forward` is the border.

        Args:
            input_ids: (sequences, positions) long; or give `inputs_embeds`, (sequences, positions, d_model).
            attention_mask: (sequences, positions, cached ones included), 0 for padding; None: there is none.
            states: of the encoder, (sequences, source positions, d_model), unless there is a cache.
            source_mask: (sequences, source positions) bool, False for padding; None: there is none.
            cache: of `new_cache`.
        """
        words = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        start, length = 0 if cache is None else cache.length, words.shape[1]
        positions = torch.arange(start, start + length, device=words.device)
        hidden = self.dropout(self.layernorm_embedding(words + self.embed_positions(positions)))
        source_mask = source_mask if cache is None else cache.source_mask
        causal = attention_mask is None and start == 0
        masks = DecoderMasks(
            None if causal else visible_target(attention_mask, length, start + length, words.device),
            causal,
            None if source_mask is None else source_mask[:, None, None, :],
        )
        shown, attentions = [], []
        for index, layer in drop_layers(enumerate(self._layers()), self.layerdrop if self.training else 0.0):
            if output_hidden_states:
                shown.append(hidden)
            source: Tensor | KeyValue = cast(Tensor, states) if cache is None else cache.source[index]
            past = None if cache is None else cache.target[index]
            if output_attentions:
                attentions.append(layer.probabilities(hidden, masks, source, past))
            hidden, known = self.run_layer(layer, hidden, masks, source, past)
            if cache is not None:
                cache.target[index] = known
        if self.layer_norm is not None:
            hidden = self.layer_norm(hidden)
        output = DecoderOutput(hidden)
        if output_hidden_states:
            output.hidden_states = (*shown, hidden)
        if output_attentions:
            output.attentions, output.cross_attentions = zip(*attentions, strict=True)
        return output

    def _layers(self) -> list[LEDDecoderLayer]:
        return cast(list[LEDDecoderLayer], list(self.layers))


def visible_target(attention_mask: Tensor | None, positions: int, known: int, device: torch.device) -> Tensor | None:
    """Returns `visible` of `DecoderSelfAttention.forward` for the last positions of all known ones.

    A padded position that sees no token sees itself, so that no row sees nothing.
    """
    if attention_mask is None and positions == 1:
        return None
    visible = causal_mask(positions, known, device)
    if attention_mask is None:
        return visible
    itself = visible.triu(known - positions)
    visible = visible & attention_mask.bool()[:, None, None, :]
    return visible | (itself & ~visible.any(-1, keepdim=True))
