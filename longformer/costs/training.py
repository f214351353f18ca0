"""What it costs to train a model: useful operations and memory, read off its modules, in one way for all models.

Nothing is computed, so a model without weights will do. Tests hold both against what PyTorch counts.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import nn

from longformer.attention.band import Band
from longformer.attention.layer import BandAndGlobalAttention
from longformer.costs.memory import MemoryEstimate, TrainingLayout, Weights, memory_estimate
from longformer.cpu.linear import CHUNK
from longformer.models.char_lm.attention import CausalSelfAttention
from longformer.models.char_lm.model import Layer as CharacterLayer
from longformer.models.common import token_loss
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.led.attention import CrossAttention, DecoderSelfAttention
from longformer.models.led.layers import LEDDecoderLayer
from longformer.training.objectives import Lengths

_LAYER = re.compile(r"(decoder\.)?layers?\.\d+\.")
_SHOWN = ".key_value"
"""Ends the names of a decoder's linear layers that work on what was read."""


@dataclass(frozen=True)
class TrainingCost:
    """What it costs to train a model."""

    model: nn.Module
    """What is not trained is frozen."""
    texts: Sequence[Lengths]
    """Of a full sequence, all alike."""
    predictions: Callable[[Lengths], float]
    """Returns at how many positions of a text the model predicts something."""
    global_tokens: int
    """Of a text."""

    def flops(self, lengths: Lengths) -> float:
        """Returns the useful floating-point operations to train on a text: three times the forward pass.

        Attention counts visible pairs only. Not counted: what is computed again in the backward pass, what the whole
        batch shares, as W_r R of transformer_xl, and the projections of global tokens.
        """
        read, written = lengths
        weights, widths = self._matrices, self._widths
        met = weights["read"] * read + weights["written"] * written + weights["predicted"] * self.predictions(lengths)
        pairs: float = widths["global"] * self.global_tokens * read + widths["across"] * read * written
        pairs += widths["causal"] * written**2 / 2
        banded = sum(heads * band.forward_flops(read, size) for (band, size), heads in self._bands.items())
        return 3.0 * (2 * met + 4 * pairs + banded)

    def memory(self, layout: TrainingLayout) -> MemoryEstimate:
        """Returns the memory that one rank needs to train on full sequences."""
        predictions = layout.micro_batch_size * round(sum(map(self.predictions, self.texts)))
        # Logits; where the loss is computed in chunks, those of one, and their gradient.
        rows = 2 * min(token_loss.CHUNK, predictions) if self._is_pretrained else predictions
        return memory_estimate(
            layout,
            self.weights,
            activations=self.activations(layout),
            float32_activations=rows * self._outputs,
        )

    def activations(self, layout: TrainingLayout) -> int:
        """Returns the most numbers that layers hold at a time while they learn from full sequences."""
        texts, (read, written) = layout.micro_batch_size * len(self.texts), self.texts[0]
        recomputes = self._is_pretrained and not layout.keeps_all
        kept, states, at_work = [], [0], [0]
        for layer in self._layers:
            positions = texts * (written if layer.decodes else read)
            if self._is_pretrained:
                at_work.append(layer.at_work(positions, recomputes))
            if not layer.learns:
                continue
            states.append(positions * layer.width)
            kept.append(positions * layer.kept + texts * read * layer.shown)
            kept[-1] += min(layer.columns, read) * layer.kept_of_column
            if recomputes:
                kept[-1] -= positions * layer.recomputed(layout.half_precision)
        if layout.activation_checkpointing:
            kept = [*states, max(kept, default=0)]
        # Before the first layer and behind the last one there is something to normalise or to predict from.
        return sum(kept) + 2 * max(states) + max(at_work)

    @property
    def _is_pretrained(self) -> bool:
        """Whether a CPU computes parts of layers again (longformer/cpu/residual.py), and losses come in chunks."""
        return isinstance(self.model, PretrainedModel)

    @cached_property
    def weights(self) -> Weights:
        """How many there are."""
        return Weights.of(self.model)

    @cached_property
    def _layers(self) -> "list[_Layer]":
        """The layers, from the lowest."""
        layers = {layer for stack in self.model.modules() if isinstance(stack, nn.ModuleList) for layer in stack}
        found, reached = [], False
        for module in self.model.modules():  # in the order in which they compute
            reached |= any(each.requires_grad for each in module.parameters(recurse=module in layers))
            if module in layers:
                found.append(_Layer.of(module, learns=reached))
        return found

    @cached_property
    def _outputs(self) -> int:
        """Numbers that are computed for a prediction."""
        return max((linear.out_features for name, linear in _linears(self.model) if not _LAYER.search(name)), default=0)

    @cached_property
    def _matrices(self) -> Counter[str]:
        """How many weights of matrices work on a position that is read, on one that is written, and on a prediction."""
        found: Counter[str] = Counter()
        for name, linear in _linears(self.model):
            layer = _LAYER.search(name)
            where = "predicted" if layer is None else "written" if layer[1] and not name.endswith(_SHOWN) else "read"
            found[where] += linear.weight.numel()
        return found

    @cached_property
    def _widths(self) -> Counter[str]:
        """How wide all queries are together that a global token compares with what is read, and a decoder's position
        with what is read and with what is written."""
        found: Counter[str] = Counter()
        for module in self.model.modules():
            if isinstance(module, BandAndGlobalAttention):
                # Its keys and values are absorbed: a head's query is as wide as the hidden states.
                found["global"] += module.heads * module.query_global.in_features
            elif isinstance(module, CrossAttention):
                found["across"] += module.out_proj.in_features
            elif isinstance(module, DecoderSelfAttention):
                found["causal"] += module.out_proj.in_features
        return found

    @cached_property
    def _bands(self) -> dict[tuple[Band, int], float]:
        """How many heads of which size see which band; a relative term makes one count half more."""
        found: dict[tuple[Band, int], float] = defaultdict(float)
        for module in self.model.modules():
            if isinstance(module, BandAndGlobalAttention):
                found[module.band, module.query_global.out_features // module.heads] += module.heads
            elif isinstance(module, CausalSelfAttention):
                for dilation in module.dilations:
                    found[Band(module.window, 0, dilation), module.head_size] += 1.0 if module.relative is None else 1.5
        return found


@dataclass(frozen=True)
class _Layer:
    """How many numbers a layer holds."""

    learns: bool
    """Whether backward reaches it: it, or what is below it, is not frozen."""
    decodes: bool
    """Whether its positions are those that are written."""
    width: int
    inner: int
    """Width inside the feed-forward part."""
    norms: int
    kept: int
    """For every position, where nothing is computed again."""
    shown: int
    """For every position that is read, by a decoder."""
    columns: int
    """Of the band; where texts are shorter it has as many as they have positions."""
    kept_of_column: int
    """For all texts together."""

    @classmethod
    def of(cls, layer: nn.Module, *, learns: bool) -> Self:
        """Reads them off a layer."""
        linears = dict(_linears(layer))
        norms = [module for module in layer.modules() if isinstance(module, nn.LayerNorm)]
        width, inner = norms[0].normalized_shape[0], max(each.in_features for each in linears.values())
        # Both sides of every linear layer: what it gives goes into attention, into an activation or is normalised.
        kept = sum(each.in_features + each.out_features for name, each in linears.items() if not name.endswith(_SHOWN))
        columns = kept_of_column = 0
        for module in layer.modules():
            if isinstance(module, CrossAttention | DecoderSelfAttention):
                kept += width  # what heads gathered, before it is laid out anew
            elif isinstance(module, CausalSelfAttention):
                kept += 2 * width  # queries and keys rotated, or queries with either bias
                if module.relative is not None:
                    # Sinusoids per dilation, and the relative keys.
                    of_dilation = 2 if module.position_dropout.p else 1
                    columns, kept_of_column = module.window + 1, width * (1 + len(set(module.dilations)) * of_dilation)
        if isinstance(layer, CharacterLayer) and layer.dropout.p:
            kept += 2 * width + inner
        return cls(
            learns=learns,
            decodes=isinstance(layer, LEDDecoderLayer),
            width=width,
            inner=inner,
            norms=len(norms),
            kept=kept,
            shown=sum(each.out_features for name, each in linears.items() if name.endswith(_SHOWN)),
            columns=columns,
            kept_of_column=kept_of_column,
        )

    def recomputed(self, half_precision: bool) -> int:
        """Returns what a CPU does not keep of a position: both sides of the activation, and precise sums."""
        return 2 * self.inner + (0 if half_precision else self.norms * self.width)

    def at_work(self, positions: int, recomputes: bool) -> int:
        """Returns what is there besides while a Longformer's or LED's layer works, most of all on its backward pass."""
        # The output's gradient, and those of queries, keys, values and attended values.
        attending = 5 * positions * self.width
        # It follows on the feed-forward part, whose inside is then gone.
        if not recomputes:
            return max(attending, positions * (self.width + self.inner))
        # Both sides of the activation with their gradients; two weights transposed, two gradients, a share of one.
        wide, of_weights = 4 * min(CHUNK, positions) * self.inner, 5 * self.width * self.inner
        return max(attending, 2 * positions * self.width + wide + of_weights)


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yields the linear layers by name, but those for global tokens and for what a whole batch shares."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith(("_global", "relative")):
            yield name, module
