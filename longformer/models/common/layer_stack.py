"""Running layers one after another: what is kept for backward, and what is shown of the layers on request."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from longformer.attention.layer import AttentionProbabilities
from longformer.attention.metadata import AttentionMetadata
from longformer.models.common.outputs import EncoderOutput

SavedActivations = Literal["all", "attention", "inputs"]
Layer = TypeVar("Layer")


class EncoderLayer(Protocol):
    """What a stack must know of its layers."""

    def __call__(self, hidden: Tensor, tokens: AttentionMetadata) -> Tensor:
        """Returns the next hidden states, in the layout of `hidden`."""

    def probabilities(self, hidden: Tensor, tokens: AttentionMetadata) -> AttentionProbabilities:
        """Returns who attends to whom in this layer, given its input."""


class LayerStack(nn.Module):
    """Base of encoders and decoders.

    `saved_activations` says what backward finds: everything, only each layer's input and what attention gave,
    or only the input; the rest is computed again.
    """

    saved_activations: SavedActivations = "all"

    def run_layer(self, layer: nn.Module, *arguments: Any) -> Any:
        """Returns the result of a layer."""
        if self.saved_activations == "all" or not torch.is_grad_enabled():
            return layer(*arguments)
        options: dict[str, Any] = {}
        if self.saved_activations == "attention":
            options["context_fn"] = partial(create_selective_checkpoint_contexts, save_attention)
        return checkpoint(layer, *arguments, use_reentrant=False, **options)


class EncoderStack(LayerStack):
    """Base of encoders."""

    def run_layers(
        self,
        layers: Iterable[EncoderLayer],
        hidden: Tensor,
        tokens: AttentionMetadata,
        *,
        output_attentions: bool,
        output_hidden_states: bool,
        last_norm: nn.Module | None = None,
        output_positions: Tensor | None = None,
    ) -> EncoderOutput:
        """Runs layers, bottom to top, and normalises their result; `hidden` may be packed, the result is not.

        With `output_positions`, (count,) long, positions counted through the batch, the last layer computes
        nothing else, and the last hidden state is (count, width); hidden states cannot be asked for then.
        """
        states, probabilities = [], []
        layers = list(layers)
        for layer in layers:
            if output_hidden_states:
                states.append(tokens.unpack(hidden))
            if output_attentions:
                probabilities.append(layer.probabilities(hidden, tokens))
            is_last = layer is layers[-1]
            selection = (tokens.packed_positions(output_positions),) if is_last and output_positions is not None else ()
            hidden = self.run_layer(cast(nn.Module, layer), hidden, tokens, *selection)
        hidden = hidden if last_norm is None else last_norm(hidden)
        if output_positions is None:
            hidden = tokens.unpack(hidden)
        output = EncoderOutput(hidden)
        if output_hidden_states:
            output.hidden_states = (*states, hidden)
        if output_attentions:
            output.attentions = tuple(each.local for each in probabilities)
            if tokens.global_tokens is not None:
                output.global_attentions = tuple(cast(Tensor, each.of_global_tokens) for each in probabilities)
        return output


def save_attention(_: Any, operator: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    """Keeps what attention gives, ours and PyTorch's; it is the dearest part to compute again."""
    is_attention = str(operator).startswith(("longformer.", "aten._scaled_dot_product"))
    return CheckpointPolicy.MUST_SAVE if is_attention else CheckpointPolicy.PREFER_RECOMPUTE


def drop_layers(layers: Iterable[Layer], probability: float) -> Iterator[Layer]:
    """Leaves out every layer with a probability (LayerDrop, arXiv 1909.11556)."""
    for layer in layers:
        if not probability or float(torch.rand([])) >= probability:
            yield layer
