"""Claims: documents packed into a row, and texts of a padded batch, are read as each of them alone would be."""

import pytest
import torch
from torch import Tensor, nn

from longformer.models import LongformerConfig, LongformerForMaskedLM
from longformer.models.common import inputs
from longformer.models.common.inputs import default_positions, first_tokens

PADDING, WINDOW = 1, 8
# Every row is 40 positions long; what its documents leave free is padding.
ROWS = [[3, 19, 11], [40], [1, 7, 2, 20]]


def make_model() -> LongformerForMaskedLM:
    torch.manual_seed(0)
    config = LongformerConfig(
        vocab_size=30,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=16,
        attention_window=WINDOW,
        max_position_embeddings=50,
        type_vocab_size=1,
        pad_token_id=PADDING,
    )
    model = LongformerForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def make_batch(rows: list[list[int]], share_of_globals: float) -> dict[str, Tensor]:
    ids, documents = torch.full((len(rows), 40), PADDING), torch.full((len(rows), 40), -1)
    for row, lengths in enumerate(rows):
        start = 0
        for document, length in enumerate(lengths):
            ids[row, start : start + length] = torch.randint(3, 30, (length,))
            documents[row, start : start + length] = document
            start += length
    mask = (documents >= 0).long()
    batch = {"input_ids": ids, "attention_mask": mask, "document_ids": documents}
    batch["labels"] = torch.randint(3, 30, ids.shape).masked_fill((torch.rand(ids.shape) < 0.7) | (mask == 0), -100)
    if share_of_globals:
        batch["global_attention_mask"] = (torch.rand(ids.shape) < share_of_globals) & (mask == 1)
    return batch


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


# Without global tokens; few, whose projections are absorbed; many, which are projected.
@pytest.mark.parametrize("share_of_globals", [0.0, 0.04, 0.6])
@pytest.mark.parametrize("rows", [ROWS, [[21], [40], [3]], [[17, 23]]], ids=["packed", "padded", "full"])
def test_documents_are_read_and_teach_as_each_of_them_alone(rows: list[list[int]], share_of_globals: float) -> None:
    torch.manual_seed(1)
    model, batch = make_model(), make_batch(rows, share_of_globals)
    if max(map(len, rows)) == 1:
        del batch["document_ids"]
    together = model(**batch, output_logits=True, facts=model.facts(**batch))
    losses, count = [], int((batch["labels"] != -100).sum())
    for row, lengths in enumerate(rows):
        start = 0
        for length in lengths:
            one = {name: tensor[row, None, start : start + length] for name, tensor in batch.items()}
            one.pop("document_ids", None)
            alone = model(**one, output_logits=True)
            torch.testing.assert_close(
                together.logits[row, None, start : start + length], alone.logits, rtol=1e-4, atol=1e-4
            )
            losses.append(alone.loss * int((one["labels"] != -100).sum()))
            start += length
    torch.testing.assert_close(together.loss, sum(losses) / count, rtol=1e-5, atol=1e-5)
    expected = gradients(model, sum(losses) / count)
    for name, gradient in gradients(model, model(**batch).loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_a_row_of_one_document_is_read_as_a_row_without_documents() -> None:
    model, ids = make_model(), torch.randint(3, 30, (2, 40))
    documents = torch.tensor([[4], [4]]).expand(2, 40)
    torch.testing.assert_close(model(ids, document_ids=documents).logits, model(ids).logits)


def test_positions_of_every_document_count_from_the_first_on() -> None:
    ids = torch.tensor([[9, 9, 9, 9, PADDING, 9, 9, PADDING]])
    documents = torch.tensor([[0, 0, 1, 1, 1, 1, 3, 3]])
    is_first = first_tokens(torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]]).bool(), documents)
    found = default_positions(ids, ids.shape, PADDING, ids.device, is_first)
    assert found.tolist() == [[2, 3, 2, 3, 1, 4, 2, 1]]
    found = default_positions(None, ids.shape, PADDING, ids.device, is_first)
    assert found.tolist() == [[2, 3, 2, 3, 4, 5, 2, 3]]


def test_padding_within_a_text_stays_in_place_and_ends_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids, mask = make_model(), torch.randint(3, 30, (1, 24)), torch.ones(1, 24, dtype=torch.long)
    mask[0, 9:12] = 0
    first = model(ids, mask, document_ids=torch.zeros_like(ids)).logits[:, :9]
    torch.testing.assert_close(first, model(ids[:, :9]).logits, rtol=1e-4, atol=1e-4)
    text = model(ids, mask).logits
    monkeypatch.setattr(inputs, "PADDING_WORTH_REMOVING", 2.0)
    torch.testing.assert_close(text, model(ids, mask).logits, rtol=1e-4, atol=1e-4)


def test_attention_probabilities_between_documents_are_refused() -> None:
    ids = torch.randint(3, 30, (1, 8))
    with pytest.raises(ValueError, match="output_attentions cannot be combined with document_ids"):
        make_model()(ids, document_ids=torch.zeros_like(ids), output_attentions=True)
