"""The Longformer encoder: any length, any windows, padding on either side, and no padding to a window."""

from functools import partial
from typing import Any, Literal, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from longformer.attention.tokens import Tokens
from longformer.models.inputs import read_inputs
from longformer.models.layers import Embeddings, Layer, Pooler
from longformer.models.longformer_config import LongformerConfig
from longformer.models.outputs import EncoderOutput
from longformer.models.pretrained import PretrainedModel

Kept = Literal["everything", "attention", "nothing"]


class EncoderInputs(TypedDict, total=False):
    """Arguments of `LongformerModel.forward` that heads hand through."""

    token_type_ids: Tensor | None
    position_ids: Tensor | None
    inputs_embeds: Tensor | None
    output_attentions: bool
    output_hidden_states: bool


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.kept: Kept = "everything"

    def forward(
        self, hidden: Tensor, tokens: Tokens, *, output_attentions: bool, output_hidden_states: bool
    ) -> EncoderOutput:
        """Run all layers; `hidden` may be packed, the result is not."""
        states, probabilities = [], []
        for layer in self.layers:
            if output_hidden_states:
                states.append(tokens.unpack(hidden))
            if output_attentions:
                probabilities.append(layer.probabilities(hidden, tokens))
            hidden = self._run(layer, hidden, tokens)
        hidden = tokens.unpack(hidden)
        output = EncoderOutput(hidden)
        if output_hidden_states:
            output.hidden_states = (*states, hidden)
        if output_attentions:
            output.attentions = tuple(each.local for each in probabilities)
            if tokens.global_tokens is not None:
                output.global_attentions = tuple(cast(Tensor, each.of_global_tokens) for each in probabilities)
        return output

    @property
    def layers(self) -> list[Layer]:
        """The layers, bottom to top."""
        return cast(list[Layer], list(self.layer))

    def _run(self, layer: nn.Module, hidden: Tensor, tokens: Tokens) -> Tensor:
        if self.kept == "everything" or not torch.is_grad_enabled():
            return layer(hidden, tokens)
        options: dict[str, Any] = {}
        if self.kept == "attention":
            options["context_fn"] = partial(create_selective_checkpoint_contexts, keep_attention)
        return checkpoint(layer, hidden, tokens, use_reentrant=False, **options)


def keep_attention(_: Any, operator: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    """Keep what the operators of this project compute; that is attention, the dearest part to compute again."""
    is_ours = getattr(operator, "namespace", None) == "longformer"
    return CheckpointPolicy.MUST_SAVE if is_ours else CheckpointPolicy.PREFER_RECOMPUTE


class LongformerModel(PretrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether to make one vector of the first token (`pooler_output`).
    """

    is_bare = True

    def __init__(self, config: LongformerConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.initialise()

    @property
    def encoder_stack(self) -> Encoder:
        return self.encoder

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
    ) -> EncoderOutput:
        """Encode a batch of texts.

        Args:
            input_ids: (batch, positions) long; or give `inputs_embeds`, (batch, positions, hidden_size).
            attention_mask: (batch, positions), 1 = token, 0 = padding, on either side; None = all tokens.
            global_attention_mask: (batch, positions), 1 = attends to all tokens and is seen by all; None = none.
            token_type_ids: (batch, positions) long; None = all 0.
            position_ids: (batch, positions) long; None = counted from the first token on, padding left out.
            output_attentions: also return attention probabilities (slow, for inspection).
            output_hidden_states: also return what stands between the layers.

        Raises:
            LongformerError: ids, positions or masks hold values that the model cannot take.
            ValueError: arguments do not fit together.
        """
        inputs = read_inputs(
            self.config,
            input_ids=input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        output: EncoderOutput = self.encoder(
            self.embeddings(inputs),
            inputs.tokens,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        if self.pooler is not None:
            output.pooler_output = self.pooler(output.last_hidden_state)
        return output
