"""Our attention inside Hugging Face's Longformer and LED models: same weights, outputs and gradients, linear memory.

Replaced are the self-attention of every encoder layer, and the forward pass around the layers: it no longer pads to
the window, builds no mask of positions x positions, and reads the masks once instead of in every layer.
"""

from collections.abc import Iterable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.led import modeling_led as led
from transformers.models.longformer import modeling_longformer as longformer

from longformer.attention.band import Band
from longformer.attention.layer import BandAndGlobalAttention
from longformer.attention.metadata import AttentionMetadata
from longformer.errors import LongformerError
from longformer.models.common.layer_stack import drop_layers
from longformer.models.longformer.global_attention import first_positions
from longformer.models.longformer.layers import of_first_token

Model = TypeVar("Model", bound=nn.Module)
PROJECTIONS = ("query", "key", "value", "query_global", "key_global", "value_global")


def patch_model(model: Model) -> Model:
    """Replaces the attention of every Longformer and LED encoder inside `model`, in place.

    Parameters stay the same objects under the same names, so optimizers, checkpoints and `save_pretrained` go on as
    before. Patching twice changes nothing more. One difference remains visible: `global_attentions` has the length
    of the text, and zeros where an example has fewer global tokens than another. Padding on the left: `pooler_output`
    reads the first token of a text; the head of LongformerForSequenceClassification, which would read padding, refuses.

    Returns:
        `model` itself.

    Raises:
        ValueError: there is nothing to patch in it.
    """
    modules: list[Any] = list(model.modules())
    longformers: list[Any] = [module for module in modules if isinstance(module, longformer.LongformerModel)]
    encoders: list[Any] = [module for module in modules if isinstance(module, led.LEDEncoder)]
    for module in longformers:
        for layer in module.encoder.layer:
            layer.attention.self = SelfAttention.of(layer.attention.self)
        module.forward = MethodType(longformer_forward, module)
    for module in modules:
        if isinstance(module, longformer.LongformerForSequenceClassification):
            module.longformer.forward = MethodType(classified_forward, module.longformer)
    for module in encoders:
        for layer in module.layers:
            layer.self_attn.longformer_self_attn = SelfAttention.of(layer.self_attn.longformer_self_attn)
        module.forward = MethodType(led_encoder_forward, module)
    if not longformers and not encoders:
        raise ValueError(f"{type(model).__name__} holds neither a Longformer nor an LED of Hugging Face")
    return model


class SelfAttention(BandAndGlobalAttention):
    """Our attention with the projections and the calling convention of Hugging Face's."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    @classmethod
    def of(cls, theirs: Any) -> "SelfAttention":
        """Takes over the projections of a Hugging Face attention module."""
        if isinstance(theirs, cls):
            return theirs
        side = theirs.one_sided_attn_window_size
        ours = cls(theirs.num_heads, Band(side, side), dropout=theirs.dropout, backend="auto")
        for name in PROJECTIONS:
            setattr(ours, name, getattr(theirs, name))
        return ours.train(theirs.training)

    def local_projections(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns queries, keys and values."""
        return tuple(project(hidden).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))

    def forward(
        self, hidden_states: Tensor, attention_mask: AttentionMetadata, output_attentions: bool = False, **_: Any
    ) -> tuple[Tensor, ...]:
        """Attends; their layers hand `attention_mask` through unseen, so it carries the tokens.

        Returns:
            The attended values; on request also the probabilities of the local rows, (batch, positions, heads,
            columns), and of the global ones, (batch, heads, global tokens, positions).
        """
        attended = self.attend(hidden_states, attention_mask)
        if not output_attentions:
            return (attended,)
        local, of_global_tokens = self.probabilities(hidden_states, attention_mask)
        if of_global_tokens is None:
            return (attended, local.transpose(1, 2))
        return (attended, local.transpose(1, 2), of_global_tokens.transpose(2, 3))


def longformer_forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    global_attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    **_: Any,
) -> Any:
    """Stands in for `transformers.LongformerModel.forward`."""
    check_one_input(input_ids, inputs_embeds)
    hidden = self.embeddings(
        input_ids=input_ids, position_ids=position_ids, token_type_ids=token_type_ids, inputs_embeds=inputs_embeds
    )
    trace = run_layers(
        self.encoder.layer,
        hidden,
        read_masks(attention_mask, global_attention_mask),
        output_attentions=choose(output_attentions, self.config.output_attentions),
        output_hidden_states=choose(output_hidden_states, self.config.output_hidden_states),
    )
    pooled = None
    if self.pooler is not None:
        # Theirs reads position 0; it gets the first token of every text there.
        pooled = self.pooler(of_first_token(trace["last_hidden_state"], attention_mask)[:, None])
    if choose(return_dict, self.config.return_dict):
        return longformer.LongformerBaseModelOutputWithPooling(pooler_output=pooled, **trace)
    last, *rest = trace.values()
    return (last, pooled, *(value for value in rest if value is not None))


def classified_forward(
    self: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *inputs: Any, **named: Any
) -> Any:
    """Stands in for `LongformerModel.forward` under a head that reads position 0, and makes it global.

    Raises:
        LongformerError: there is padding at position 0.
    """
    if attention_mask is not None and bool(first_positions(attention_mask).any()):
        raise LongformerError(
            "texts are padded on the left, where LongformerForSequenceClassification of transformers reads: pad them "
            'on the right (tokenizer.padding_side = "right"), or take our class of that name'
        )
    return longformer_forward(self, input_ids, attention_mask, *inputs, **named)


def led_encoder_forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    global_attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    **_: Any,
) -> Any:
    """Stands in for `LEDEncoder.forward` of transformers."""
    check_one_input(input_ids, inputs_embeds)
    words = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
    hidden = self.layernorm_embedding(words + self.embed_positions(words.shape[:2]))
    trace = run_layers(
        drop_layers(self.layers, self.layerdrop if self.training else 0.0),
        functional.dropout(hidden, p=self.dropout, training=self.training),
        read_masks(attention_mask, global_attention_mask),
        output_attentions=choose(output_attentions, self.config.output_attentions),
        output_hidden_states=choose(output_hidden_states, self.config.output_hidden_states),
    )
    if choose(return_dict, self.config.return_dict):
        return led.LEDEncoderBaseModelOutput(**trace)
    return tuple(value for value in trace.values() if value is not None)


def run_layers(
    layers: Iterable[nn.Module],
    hidden: Tensor,
    tokens: AttentionMetadata,
    *,
    output_attentions: bool,
    output_hidden_states: bool,
) -> dict[str, Any]:
    """Runs Hugging Face's layers; returns the fields of their encoder outputs."""
    states, attentions, global_attentions = [], [], []
    for layer in layers:
        if output_hidden_states:
            states.append(hidden)
        # Their layers checkpoint themselves, and want the hidden states by position for it.
        hidden, *probabilities = layer(hidden, attention_mask=tokens, output_attentions=output_attentions)
        if probabilities:
            attentions.append(probabilities[0].transpose(1, 2))
            global_attentions += [each.transpose(2, 3) for each in probabilities[1:]]
    return {
        "last_hidden_state": hidden,
        "hidden_states": (*states, hidden) if output_hidden_states else None,
        "attentions": tuple(attentions) if output_attentions else None,
        "global_attentions": tuple(global_attentions) if global_attentions else None,
    }


def read_masks(attention_mask: Tensor | None, global_attention_mask: Tensor | None) -> AttentionMetadata:
    """Describes a batch by Hugging Face's masks: a 2 in `attention_mask` is global too, and padding never is."""
    token_mask = None if attention_mask is None else attention_mask > 0
    is_global = None if global_attention_mask is None else global_attention_mask > 0
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        older = attention_mask > 1
        is_global = older if is_global is None else is_global | older
    return AttentionMetadata.of(token_mask, is_global)


def check_one_input(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> None:
    """Raises ValueError unless exactly one of the two is given."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds")


def choose(argument: bool | None, default: bool) -> bool:
    """Returns the caller's choice, or the config's where there is none."""
    return default if argument is None else argument
