"""Every held-out document is written about once, the same for every number of ranks, and the table says what was."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from longformer.evaluation.rouge import rouge
from longformer.evaluation.summaries import HeldOutDocument, ScoredSummary, evaluate_summaries, summary_of, write_table
from longformer.evaluation.words import TextUnits
from longformer.models import LEDForConditionalGeneration
from longformer.models.led.config import LEDConfig
from longformer.training.distributed import Ranks
from longformer.training.objectives import summary_tokens
from tests.training.rank_group import in_ranks

WORDS = ["<s>", "<pad>", "</s>", "cells", "bind", "the", "receptor", "of", "a", "mouse", "and", "grow"]
SETTINGS = {"num_beams": 3, "max_length": 12, "min_length": 4, "no_repeat_ngram_size": 2}


def small_model(seed: int = 0) -> LEDForConditionalGeneration:
    torch.manual_seed(seed)
    config = LEDConfig(
        vocab_size=len(WORDS), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, attention_window=8,
        max_encoder_position_embeddings=64, max_decoder_position_embeddings=16, dropout=0.0, init_std=0.5,
    )  # fmt: skip
    return LEDForConditionalGeneration(config)


def decode(tokens: list[int]) -> str:
    return " ".join(WORDS[token] for token in tokens if token > 2)


def documents(count: int = 11) -> list[HeldOutDocument]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(count):
        ids = torch.randint(3, len(WORDS), (5 + 3 * number % 20,), generator=draw)
        text = decode(ids.tolist())
        tokens = torch.cat([torch.tensor([0]), ids, torch.tensor([2])])
        found.append(HeldOutDocument(f"n{number}", "", f"{text}. {text[:20]}.", (text[:30],), tokens, 1, len(ids)))
    return found


def judged_by(ranks: Ranks) -> list[ScoredSummary]:
    return evaluate_summaries(
        small_model(), documents(), decode, settings=SETTINGS, batch_size=3, units=TextUnits(), rank=ranks.rank,
        world_size=ranks.world_size,
    )  # fmt: skip


def test_the_table_is_the_same_for_every_number_of_ranks_and_holds_every_document_once() -> None:
    alone = judged_by(Ranks(0, 1, torch.device("cpu"), local_rank=0))
    assert [line.identifier for line in alone] == [document.identifier for document in documents()]
    assert len({line.prediction for line in alone}) > 3
    for found in in_ranks(5, judged_by):  # of five ranks one has no batch
        assert found == alone


def test_what_is_written_about_a_document_alone_is_what_is_written_in_its_batch() -> None:
    model = small_model()
    for line, document in zip(judged_by(Ranks(0, 1, torch.device("cpu"), local_rank=0)), documents(), strict=True):
        global_attention_mask = torch.zeros_like(document.input_ids)
        global_attention_mask[:1] = 1
        written = model.generate(
            document.input_ids[None], global_attention_mask=global_attention_mask[None], **SETTINGS
        )
        assert line.prediction == decode(written[0].tolist())
        assert line.scores == rouge(line.prediction, document.references)


def test_the_whole_is_the_mean_of_the_lines(tmp_path: Path) -> None:
    table = judged_by(Ranks(0, 1, torch.device("cpu"), local_rank=0))
    whole = summary_of(table, TextUnits())
    assert whole["documents"] == len(table)
    assert whole["rouge1"] == pytest.approx(sum(line.scores["rouge1"] for line in table) / len(table))
    low, high = whole["intervals"]["rouge1"]
    assert low <= whole["rouge1"] <= high
    assert whole["oracle"]["rouge1"] >= whole["lead"]["rouge1"]
    counts = whole["rouge1_by_tokens"].values()
    assert sum(each["documents"] for each in counts) == len(table)
    write_table(tmp_path / "table.jsonl", table)
    lines = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert lines == json.loads(json.dumps([asdict(line) for line in table]))


def test_nothing_to_write_about_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no documents"):
        evaluate_summaries(small_model(), [], decode, settings=SETTINGS, batch_size=3, units=TextUnits())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_the_published_formula_per_token(smoothing: float) -> None:
    model = small_model()
    draw = torch.Generator().manual_seed(2)
    ids, labels = (torch.randint(3, len(WORDS), (2, length), generator=draw) for length in (20, 9))
    labels[1, 5:] = -100
    global_attention_mask = torch.zeros_like(ids)
    global_attention_mask[:, 0] = 1
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "global_attention_mask": global_attention_mask,
        "labels": labels,
    }
    objective = summary_tokens(smoothing)
    chances = model(**batch, output_logits=True).logits.log_softmax(-1)[labels != -100]
    right = -functional.one_hot(labels[labels != -100], len(WORDS)).mul(chances).sum(-1)
    expected = ((1 - smoothing) * right - smoothing / len(WORDS) * chances.sum(-1)).mean()
    assert objective.loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert objective.predictions is not None
    assert objective.predictions(batch) == 14


def test_a_decoder_that_starts_with_the_begin_token_reads_and_learns_what_the_authors_code_does() -> None:
    """Their decoder reads ids[:-1] and learns ids[1:], where ids are `<s> summary </s>` (semantics.md 5)."""
    model = small_model()
    model.config = model.config.replaced(decoder_start_token_id=0)
    model.led.config = model.config
    source, ids = torch.tensor([[0, 5, 6, 7, 2]]), torch.tensor([[0, 3, 4, 5, 2]])
    ours = model(source, labels=ids[:, 1:]).loss
    theirs = model(source, decoder_input_ids=ids[:, :-1], labels=ids[:, 1:]).loss
    assert ours.item() == theirs.item()
