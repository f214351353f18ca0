"""Claims about the Longformer models that need no peer: memory, fresh and published weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from longformer.models import (
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForMultipleChoice,
    LongformerForSequenceClassification,
    LongformerModel,
)
from tests.models.largest_tensor import LargestTensor

SMALL = {
    "vocab_size": 500,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "attention_window": (4, 10),
    "max_position_embeddings": 1026,
    "type_vocab_size": 1,
}


def test_the_loss_never_sees_all_logits_unless_they_are_asked_for() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    ids = torch.randint(3, 500, (1, 1000))
    with LargestTensor() as largest:
        output = model(ids, labels=ids)
        output.loss.backward()
    assert output.logits is None
    assert largest.numbers < 1000 * 500 / 2
    assert model(ids, labels=ids, output_logits=True).logits.shape == (1, 1000, 500)
    assert model(ids).logits.shape == (1, 1000, 500)


def test_a_batch_without_labels_has_a_loss_of_zero_and_gradients() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    ids = torch.randint(3, 500, (1, 20))
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert float(loss) == 0
    assert float(model.longformer.embeddings.word_embeddings.weight.grad.abs().max()) == 0


def test_a_text_alone_and_in_a_padded_batch_reads_the_same() -> None:
    model = LongformerModel(LongformerConfig(**SMALL)).eval()
    short, long = torch.randint(3, 500, (1, 37)), torch.randint(3, 500, (1, 61))
    for side in ("left", "right"):
        ids = torch.ones(2, 61, dtype=torch.long)
        place = slice(24, 61) if side == "left" else slice(0, 37)
        ids[0], ids[1, place] = long, short
        is_global = torch.zeros_like(ids)
        is_global[1, place.start + 3] = is_global[1, place.start + 9] = is_global[0, 40] = 1
        batch = model(ids, attention_mask=(ids != 1).long(), global_attention_mask=is_global).last_hidden_state
        alone = model(short, global_attention_mask=is_global[1:, place]).last_hidden_state
        torch.testing.assert_close(batch[1:, place], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_class", [LongformerForSequenceClassification, LongformerForMultipleChoice])
def test_a_head_reads_the_first_token_of_a_text_on_whichever_side_its_padding_is(model_class: Any) -> None:
    model = model_class(LongformerConfig(**SMALL)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)

    def logits(texts: list[torch.Tensor], share_before: float) -> torch.Tensor:
        ids = torch.ones(len(texts), max(map(len, texts)), dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            start = int(share_before * (len(row) - len(text)))
            row[start : start + len(text)] = text
        mask = (ids != 1).long()
        if model_class is LongformerForMultipleChoice:
            return model(ids[None], mask[None], mask[None]).logits[0, :, None]
        return model(ids, mask).logits

    texts = [torch.randint(3, 500, (length,)) for length in (37, 61, 1, 50)]
    alone = torch.cat([logits([text], 0) for text in texts])
    assert alone.std(0).min() > 1e-2
    for share_before in (0, 0.5, 1):
        torch.testing.assert_close(logits(texts, share_before), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("globals_per_text", [0, 1, 3, 40])
def test_autocast_gives_the_loss_and_the_gradients_of_whole_precision(
    dtype: torch.dtype, globals_per_text: int
) -> None:
    model = LongformerForMaskedLM(LongformerConfig(**{**SMALL, "hidden_dropout_prob": 0.0}))
    ids = torch.randint(3, 500, (3, 61))
    ids[1, 37:] = 1
    is_global = ((torch.arange(61) < globals_per_text) & (ids != 1)).long()
    results = []
    for enabled in (False, True):
        model.eval().zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss = model(ids, (ids != 1).long(), is_global, labels=ids).loss
        loss.backward()
        results.append((loss, [each.grad for each in model.parameters() if each.grad is not None]))
    (loss, gradients), (half_loss, half_gradients) = results
    torch.testing.assert_close(half_loss, loss, rtol=1e-2, atol=0, check_dtype=False)
    for half, whole in zip(half_gradients, gradients, strict=True):
        torch.testing.assert_close(half, whole, rtol=0, atol=float(0.05 * whole.abs().max() + 1e-4))


def test_fresh_weights_are_those_of_hugging_face_in_kind() -> None:
    model = LongformerForMaskedLM(LongformerConfig(**SMALL))
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            assert bool((parameter == 1).all()), name
        elif name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        else:
            assert 0.01 < float(parameter.std()) < 0.03, name
    for table in (model.longformer.embeddings.word_embeddings, model.longformer.embeddings.position_embeddings):
        assert float(table.weight[1].abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_window": 5}, "attention_window must be even and positive, got 5"),
        ({"attention_window": (4, 0)}, "attention_window must be even and positive, got 0"),
        ({"attention_window": (4, 4, 4)}, r"attention_window must be one number or one per layer \(2\), got 3"),
        ({"num_attention_heads": 3}, "hidden_size must be a multiple of num_attention_heads"),
        ({"hidden_act": "sigmoid"}, "hidden_act must be one of gelu"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongformerModel(LongformerConfig(**{**SMALL, **change}))


def test_the_published_base_model_gives_the_numbers_of_spec_1_8(published: Callable[[str], Path]) -> None:
    model = LongformerModel.from_pretrained(published("longformer-base-4096"))
    with torch.no_grad():
        short = model(torch.tensor([[0, 20920, 232, 328, 1437, 2]])).last_hidden_state
        ids = torch.tensor([[0, *[20920, 232, 328, 1437] * 1000, 2]])
        is_global = torch.zeros_like(ids)
        is_global[:, [1, 4, 21]] = 1
        long = model(ids, global_attention_mask=is_global).last_hidden_state
    expected = torch.tensor([0.0549, 0.1087, -0.1119, -0.0368, 0.0250])
    torch.testing.assert_close(short[0, 0, -5:], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(long.sum(), torch.tensor(74585.8594), atol=0, rtol=1e-4)
    torch.testing.assert_close(long.mean(), torch.tensor(0.0243), atol=1e-4, rtol=0)


def test_the_published_base_model_predicts_its_input_as_in_spec_1_8(published: Callable[[str], Path]) -> None:
    ids = torch.tensor([[0, *[20920, 232, 328, 1437] * 1000, 2]])
    model = LongformerForMaskedLM.from_pretrained(published("longformer-base-4096"))
    with torch.no_grad():
        output = model(ids, labels=ids, output_logits=True)
    torch.testing.assert_close(output.loss, torch.tensor(0.0074), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.logits.mean(), torch.tensor(-3.0348), atol=1e-4, rtol=0)
