"""Claims: a layer is one graph under torch.compile, which serves all lengths without compiling again, and layers of one
kind share it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from longformer.attention.metadata import AttentionMetadata
from longformer.models import LEDConfig, LEDForConditionalGeneration, LongformerConfig, LongformerForMaskedLM
from longformer.models.common.compiling import compile_layers
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.led.layers import DecoderMasks, LEDDecoderLayer, LEDEncoderLayer
from longformer.models.longformer.layers import Layer
from tests.attention.packing_cases import packed_metadata

LONGFORMER = LongformerConfig(hidden_size=16, num_attention_heads=2, intermediate_size=24, attention_window=10)
LED = LEDConfig(
    d_model=16,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    attention_window=10,
)


def compare_with_compiled(layer: nn.Module, inputs: Callable[[int], tuple[object, ...]]) -> None:
    """Compile a layer at one length and compare it there and, without compiling again, at others."""
    compiled = torch.compile(layer.eval(), fullgraph=True, dynamic=True, backend="aot_eager")

    def compare(positions: int) -> None:
        given = inputs(positions)
        torch.testing.assert_close(compiled(*given), layer(*given))

    compare(40)
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions in (41, 97):
            compare(positions)


@pytest.mark.parametrize("layer", [Layer(LONGFORMER, 1), LEDEncoderLayer(LED, 1)], ids=["Longformer", "LED"])
def test_an_encoder_layer_with_padding_removed_is_one_graph(layer: nn.Module) -> None:
    def inputs(positions: int) -> tuple[Tensor, AttentionMetadata]:
        mask = torch.ones(2, positions, dtype=torch.bool)
        mask[1, positions // 2 :] = False
        tokens = packed_metadata(mask, (torch.arange(positions) < 3) & mask)
        return tokens.pack(torch.randn(2, positions, 16)).requires_grad_(), tokens

    compare_with_compiled(layer, inputs)


def test_a_decoder_layer_is_one_graph() -> None:
    def inputs(positions: int) -> tuple[Tensor, DecoderMasks, Tensor]:
        source = 2 * positions + 3
        view = DecoderMasks(None, True, (torch.arange(source) < 30).expand(2, 1, 1, source))
        return torch.randn(2, positions, 16, requires_grad=True), view, torch.randn(2, source, 16)

    compare_with_compiled(LEDDecoderLayer(LED), inputs)


SMALL = {"vocab_size": 50, "attention_window": 10}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def padded_batch(positions: int, global_tokens: int) -> dict[str, Tensor]:
    """Return three texts, one of half the length, with labels for some tokens."""
    ids = torch.randint(5, 50, (3, positions))
    mask = torch.ones_like(ids)
    mask[2, positions // 2 :] = 0
    is_labelled = (torch.rand(3, positions) < 0.3) & (mask == 1)
    return {
        "input_ids": ids.where(mask == 1, 1),
        "attention_mask": mask,
        "global_attention_mask": (torch.arange(positions) < global_tokens).long().expand_as(ids),
        "labels": ids.where(is_labelled, -100),
    }


@pytest.mark.parametrize(
    ("model_class", "config", "kinds"),
    [
        # The last layer of a masked language model computes the hidden words only.
        (LongformerForMaskedLM, replace(LONGFORMER, num_hidden_layers=4, **SMALL, **NO_DROPOUT), 2),
        (LEDForConditionalGeneration, replace(LED, encoder_layers=3, **SMALL, dropout=0.0, attention_dropout=0.0), 2),
    ],
    ids=["Longformer", "LED"],
)
def test_the_layers_of_a_model_share_graphs_for_all_lengths_and_numbers_of_global_tokens(
    model_class: type[PretrainedModel], config: Any, kinds: int
) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = model_class(config).train()
    plain = deepcopy(model)
    names = set(model.state_dict())
    compile_layers(model, backend=count)
    assert set(model.state_dict()) == names

    def compare(positions: int, global_tokens: int) -> None:
        batch = padded_batch(positions, global_tokens)
        losses = [each(**batch).loss for each in (model, plain)]
        torch.testing.assert_close(*losses)
        sum(losses).backward()

    compare(40, 3)
    assert len(graphs) == kinds
    with torch.compiler.set_stance("fail_on_recompile"):
        for positions, global_tokens in ((41, 2), (64, 6), (96, 5)):
            compare(positions, global_tokens)
    assert not torch._dynamo.utils.counters["graph_break"]
