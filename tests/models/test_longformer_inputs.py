"""Claims: a batch that a Longformer cannot take is refused with one sentence, before any layer runs."""

import pytest
import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.models import LongformerConfig, LongformerForQuestionAnswering, LongformerModel


@pytest.fixture(scope="module")
def model() -> LongformerModel:
    config = LongformerConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        attention_window=4,
        max_position_embeddings=12,
        type_vocab_size=1,
    )
    return LongformerModel(config).eval()


IDS = torch.arange(3, 11)[None]
NINE, ONES = torch.full((1, 8), 9), torch.ones(1, 8, dtype=torch.long)
LAST_PADDED = torch.tensor([[1] * 7 + [0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": IDS + 12}, "token id 22 is outside the vocabulary of 20"),
        ({"input_ids": IDS - 4}, "token id -1 is outside"),
        ({"input_ids": torch.full((1, 11), 5)}, "reaches token 11, the model has positions for 10.*--max-length 11"),
        ({"input_ids": IDS, "position_ids": ONES * 12}, "--max-length 11"),
        ({"input_ids": IDS, "position_ids": -ONES}, "positions are not negative"),
        ({"input_ids": IDS, "token_type_ids": ONES}, "token_type_ids holds 1"),
        ({"input_ids": IDS, "attention_mask": ONES * 2}, "attention_mask must hold 1 for tokens and 0 for padding"),
        ({"input_ids": IDS, "attention_mask": ONES * 0.5}, "attention_mask must hold"),
        ({"input_ids": IDS, "global_attention_mask": NINE}, "global_attention_mask must hold"),
        ({"input_ids": IDS, "attention_mask": LAST_PADDED, "global_attention_mask": ONES}, "1 at a padded position"),
    ],
)
def test_values_that_the_model_cannot_take_are_named(
    model: LongformerModel, arguments: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(LongformerError, match=message) as raised:
        model(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": IDS, "inputs_embeds": torch.zeros(1, 8, 8)}, "either input_ids or inputs_embeds"),
        ({"input_ids": IDS[0]}, r"must be \(batch, positions\)"),
        ({"input_ids": IDS[:, :0]}, "not empty"),
        ({"input_ids": IDS, "attention_mask": ONES[:, :5]}, "attention_mask must have 8 positions"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(
    model: LongformerModel, arguments: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_masks_of_every_common_type_mean_the_same(model: LongformerModel) -> None:
    results = [
        model(IDS, attention_mask=LAST_PADDED.to(dtype), global_attention_mask=(IDS == 3).to(dtype)).last_hidden_state
        for dtype in (torch.long, torch.int32, torch.bool, torch.float32)
    ]
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_a_row_of_nothing_but_padding_gives_numbers_and_gradients(model: LongformerModel) -> None:
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1] = 0
    model.zero_grad()
    output = model(IDS.expand(2, -1), attention_mask=mask, global_attention_mask=(torch.arange(8) < 3) * mask)
    output.last_hidden_state.square().sum().backward()
    assert bool(output.last_hidden_state.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


def test_a_question_without_three_separators_is_refused(model: LongformerModel) -> None:
    with pytest.raises(LongformerError, match="separator token 2 exactly three times"):
        LongformerForQuestionAnswering(model.config)(IDS)
