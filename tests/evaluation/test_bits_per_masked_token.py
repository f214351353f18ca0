"""Bits per masked token: the mean over the text's hidden tokens, whatever rows the text is cut into."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from longformer.evaluation.bits import MaskedText, evaluate_bits_per_masked_token
from longformer.models import LongformerForMaskedLM
from longformer.models.common.token_loss import IGNORED
from longformer.models.longformer.config import LongformerConfig

VOCABULARY = 11


@dataclass
class Loss:
    loss: Tensor


class Unigrams:
    """A model that knows how often tokens occur and looks at nothing else; checks what it is given."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, *, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Loss:
        assert (input_ids[:, 0] == 0).all()
        lengths = attention_mask.sum(1)
        assert (input_ids[torch.arange(len(lengths)), lengths - 1] == 2).all()
        assert (input_ids[attention_mask == 0] == 1).all()
        wanted = labels[labels != IGNORED]
        if not len(wanted):
            return Loss(torch.zeros(()))
        return Loss(functional.cross_entropy(self.scores.expand(len(wanted), -1), wanted))


def masked_text(length: int, seed: int) -> MaskedText:
    generator = np.random.default_rng(seed)
    tokens = generator.integers(4, VOCABULARY, length)
    labels = np.where(generator.random(length) < 0.3, tokens, IGNORED)
    labels[length // 2] = tokens[length // 2]
    return MaskedText(tokens, labels, begin=0, end=2, padding=1)


def small_model() -> LongformerForMaskedLM:
    torch.manual_seed(0)
    config = LongformerConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attention_window=4,
        max_position_embeddings=34,
    )
    return LongformerForMaskedLM(config)


@given(length=st.integers(1, 60), seed=st.integers(0, 99), row=st.integers(3, 80), batch=st.integers(1, 5))
def test_every_hidden_token_counts_once_whatever_the_rows(length: int, seed: int, row: int, batch: int) -> None:
    text = masked_text(length, seed)
    scores = torch.linspace(-2, 2, VOCABULARY)
    result = evaluate_bits_per_masked_token(Unigrams(scores), text, sequence_length=row, batch_size=batch)
    hidden = torch.from_numpy(text.labels[text.labels != IGNORED])
    assert result.scored == len(hidden)
    assert result.bits == pytest.approx(-scores.log_softmax(0)[hidden].mean().item() / math.log(2), abs=1e-5)


def test_a_real_model_is_judged_by_its_own_loss() -> None:
    model = small_model()
    text = masked_text(20, 1)
    result = evaluate_bits_per_masked_token(model, text, sequence_length=32, batch_size=1)
    assert model.training, "left as it was"
    row = torch.tensor([[0, *text.tokens, 2]])
    labels = torch.tensor([[IGNORED, *text.labels, IGNORED]])
    expected = model.eval()(row, labels=labels).loss.item() / math.log(2)
    assert result.bits == pytest.approx(expected, abs=1e-5)


def test_documents_of_a_row_are_judged_as_if_each_were_alone() -> None:
    model = small_model()
    documents = [masked_text(length, seed=length) for length in (9, 4, 12)]
    joined = MaskedText(
        np.concatenate([[*each.tokens, 2] for each in documents]),
        np.concatenate([[*each.labels, IGNORED] for each in documents]),
        begin=0,
        end=2,
        padding=1,
        cross_document_attention=False,
    )
    result = evaluate_bits_per_masked_token(model, joined, sequence_length=32, batch_size=1)
    nats = 0.0
    for number, each in enumerate(documents):
        begin = [0] if number == 0 else []
        alone = torch.tensor([[*begin, *each.tokens, 2]])
        labels = torch.tensor([[*[IGNORED for _ in begin], *each.labels, IGNORED]])
        nats += model.eval()(alone, labels=labels).loss.item() * int((labels != IGNORED).sum())
    assert result.bits == pytest.approx(nats / result.scored / math.log(2), abs=1e-5)


def test_a_text_without_hidden_tokens_and_rows_without_room_are_refused() -> None:
    text = masked_text(5, 0)
    with pytest.raises(ValueError, match="sequence_length must be at least 3"):
        evaluate_bits_per_masked_token(Unigrams(torch.zeros(VOCABULARY)), text, sequence_length=2, batch_size=1)
    nothing = MaskedText(text.tokens, np.full(5, IGNORED), 0, 2, 1)
    with pytest.raises(ValueError, match="nothing to score"):
        evaluate_bits_per_masked_token(Unigrams(torch.zeros(VOCABULARY)), nothing, sequence_length=8, batch_size=1)
