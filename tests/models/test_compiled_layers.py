"""Claims: a layer is one graph under torch.compile, which serves all lengths without compiling again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from longformer.attention.metadata import AttentionMetadata
from longformer.models import LEDConfig, LongformerConfig
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
