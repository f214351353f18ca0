"""Claims: a batch that an LED cannot take is refused with one sentence, before any layer runs."""

import pytest
import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models import LEDConfig, LEDForConditionalGeneration, LEDModel
from tests.models.test_longformer_inputs import IDS, ONES, REFUSED


@pytest.fixture(scope="module")
def model() -> LEDModel:
    config = LEDConfig(
        vocab_size=20,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        attention_window=4,
        max_encoder_position_embeddings=10,
        max_decoder_position_embeddings=6,
    )
    return LEDModel(config).eval()


TARGET = IDS[:, :4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *REFUSED,
        (
            {"input_ids": torch.full((1, 11), 5)},
            "text has 11 tokens, the encoder has positions for 10.*--max-length 11",
        ),
        ({"inputs_embeds": torch.zeros(1, 11, 8)}, "text has 11 tokens"),
        ({"decoder_input_ids": TARGET + 17}, "token id 23 is outside the vocabulary of 20"),
        ({"decoder_input_ids": IDS[:, :7]}, "decoder is given 7 tokens, it has positions for 6: shorten"),
        ({"decoder_input_ids": None}, "decoder is given 8 tokens"),
        ({"decoder_attention_mask": ONES[:, :4] * 3}, "attention_mask must hold"),
    ],
)
def test_values_that_the_model_cannot_take_are_named(
    model: LEDModel, arguments: dict[str, Tensor], message: str
) -> None:
    given = {"decoder_input_ids": TARGET} | ({} if "inputs_embeds" in arguments else {"input_ids": IDS}) | arguments
    with pytest.raises(LongformerError, match=message) as raised:
        model(**given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder_input_ids": TARGET}, "either input_ids or inputs_embeds"),
        ({"input_ids": IDS, "inputs_embeds": torch.zeros(1, 8, 8), "decoder_input_ids": TARGET}, "either input_ids or"),
        ({"inputs_embeds": torch.zeros(1, 8, 8)}, "either decoder_input_ids or decoder_inputs_embeds"),
        ({"input_ids": IDS[0], "decoder_input_ids": TARGET}, r"input_ids must be \(batch, positions\)"),
        ({"input_ids": IDS, "decoder_input_ids": TARGET[:, :0]}, r"decoder_input_ids must be .* not empty"),
        ({"input_ids": IDS, "decoder_input_ids": TARGET, "attention_mask": ONES[:, :5]}, r"\(1, 8\), got \(1, 5\)"),
        (
            {"input_ids": IDS, "decoder_input_ids": TARGET, "decoder_attention_mask": ONES},
            "decoder_attention_mask must",
        ),
        (
            {"encoder_outputs": (torch.zeros(1, 9, 8),), "decoder_input_ids": TARGET, "attention_mask": ONES},
            r"as in encoder_outputs, \(1, 9\), got \(1, 8\)",
        ),
        ({"input_ids": IDS.expand(2, 8), "decoder_input_ids": TARGET.expand(3, 4)}, "3 rows .* do not go with 2"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(
    model: LEDModel, arguments: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_labels_outside_the_vocabulary_are_named(model: LEDModel) -> None:
    with pytest.raises(LongformerError, match="token id 20 is outside the vocabulary of 20"):
        LEDForConditionalGeneration(model.config)(IDS, labels=torch.tensor([[5, -100, 20]]))


def test_labels_for_other_positions_than_those_read_are_refused(model: LEDModel) -> None:
    with pytest.raises(ValueError, match=r"labels must be \(batch, positions\), \(1, 4\), got \(1, 3\)"):
        LEDForConditionalGeneration(model.config)(IDS, decoder_input_ids=TARGET, labels=TARGET[:, :3])


def test_a_source_of_nothing_but_padding_gives_numbers_and_gradients(model: LEDModel) -> None:
    mask, target_mask = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 4, dtype=torch.long)
    mask[1], target_mask[0, :2] = 0, 0
    model.zero_grad()
    output = model(IDS.expand(2, -1), mask, TARGET.expand(2, -1), target_mask)
    output.last_hidden_state.square().sum().backward()
    assert bool(output.last_hidden_state.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)
