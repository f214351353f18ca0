"""Claims: weights are counted without being made, and those apart that are not trained."""

import subprocess
import sys

import pytest

from longformer.costs.memory import Weights
from longformer.models import LEDConfig, LEDForConditionalGeneration, LongformerForMaskedLM
from longformer.models.common.freezing import freeze_global_projections, freeze_pretrained
from longformer.models.common.layer_order import freeze_lower_layers
from longformer.models.common.pretrained import PretrainedModel
from longformer.models.common.weightless import without_weights
from longformer.models.longformer.config import LongformerConfig

WIDTH, INNER, LAYERS, VOCABULARY, POSITIONS = 16, 40, 3, 90, 70
SQUARE = WIDTH**2 + WIDTH
LAYER = 7 * SQUARE + 2 * WIDTH * INNER + INNER + WIDTH + 4 * WIDTH
EMBEDDINGS = (VOCABULARY + POSITIONS + 1) * WIDTH + 2 * WIDTH
HEAD = SQUARE + 2 * WIDTH + VOCABULARY
"""Weights of a Longformer's parts, by hand; its output matrix is that of the words."""


def encoder() -> LongformerForMaskedLM:
    config = LongformerConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
        intermediate_size=INNER, max_position_embeddings=POSITIONS, type_vocab_size=1, attention_window=8,
    )  # fmt: skip
    with without_weights():
        return LongformerForMaskedLM(config)


def test_weights_that_are_not_trained_are_counted_apart() -> None:
    everything = EMBEDDINGS + LAYERS * LAYER + HEAD
    model = encoder()
    assert Weights.of(model) == Weights(everything, trained=everything)
    freeze_global_projections(model)
    assert Weights.of(model) == Weights(everything, trained=everything - LAYERS * 3 * SQUARE)
    freeze_lower_layers(model, 2)
    assert Weights.of(model) == Weights(everything, trained=LAYER - 3 * SQUARE + HEAD)
    model = encoder()
    freeze_pretrained(model, POSITIONS - 9)
    assert Weights.of(model) == Weights(everything, trained=9 * WIDTH)


@pytest.mark.parametrize("ties", [True, False])
def test_shared_matrices_count_once(ties: bool) -> None:
    config = LEDConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER, attention_window=8,
        tie_word_embeddings=ties,
    )  # fmt: skip
    with without_weights():
        model: PretrainedModel = LEDForConditionalGeneration(config)
    # The words' table, those of encoder and decoder, and the output matrix.
    others = Weights.of(model).all - (1 if ties else 4) * VOCABULARY * WIDTH
    encoder_layer, decoder_layer = LAYER, LAYER + SQUARE + 2 * WIDTH
    positions = config.max_encoder_position_embeddings + config.max_decoder_position_embeddings
    assert others == encoder_layer + decoder_layer + positions * WIDTH + 4 * WIDTH


def test_a_model_without_weights_is_made_without_loading_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from longformer.models import LEDConfig, LEDForConditionalGeneration as LED\n"
        "from longformer.models.common.weightless import without_weights\n"
        "with without_weights():\n"
        "    model = LED(LEDConfig())\n"
        "assert next(model.parameters()).is_meta\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
