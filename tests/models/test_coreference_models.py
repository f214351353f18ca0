"""The models of coreference against plain loops over spans and pairs, and what must hold of documents in a batch."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.inference.classification import padded_arrays
from longformer.inference.coreference import document_clusters
from longformer.inference.segments import SegmentReading
from longformer.models import LongformerConfig, LongformerForCoreference
from longformer.models.common.weightless import without_weights
from longformer.models.coreference.config import CoreferenceConfig
from longformer.models.coreference.model import antecedent_losses
from longformer.models.coreference.spans import Documents, kept_spans
from longformer.training.objectives import CLUSTERS
from tests.models.coreference_oracle import CoarseToFineOracle, Oracle, StartToEndOracle, greedy
from tests.models.live_memory import LiveMemory

VOCABULARY, PADDING, MOST = 60, 1, 4
KINDS: dict[str, type[Oracle]] = {"coarse_to_fine": CoarseToFineOracle, "start_to_end": StartToEndOracle}
READING = SegmentReading(length=26, overlap=6, begin=0, end=2, genres=("bc", "nw"))
Arrays = dict[str, np.ndarray]


def model_of(kind: str, **changes: Any) -> Any:
    """Return a small model whose weights are large enough for scores to differ."""
    own = {
        "kind": kind, "max_span_tokens": MOST, "max_antecedents": 3, "head_size": 12, "feature_size": 4, "dropout": 0.0,
        "genres": READING.genres, **changes,
    }  # fmt: skip
    config = LongformerConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        attention_window=8, max_position_embeddings=64, pad_token_id=PADDING, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5, coreference=own,
    )  # fmt: skip
    torch.manual_seed(3)
    model = LongformerForCoreference(config)
    with torch.no_grad():
        for parameter in model.coreference.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def document(seed: int, *, words: int) -> Arrays:
    """Return a document of random words, sentences, speakers and clusters."""
    draw = random.Random(seed)
    pieces = [draw.choice([0, 1, 1, 1, 2, 3]) for _ in range(words)]
    lengths = [words // 3, words // 3, words - 2 * (words // 3)]
    mentions = [(first, min(words - 1, first + draw.randint(0, 1))) for first in range(0, words, 2)]
    draw.shuffle(mentions)
    return READING.arrays(
        {
            "ids": [draw.randrange(3, VOCABULARY) for _ in range(sum(pieces))],
            "pieces": pieces,
            "sentences": lengths,
            "speakers": ["Ann", "", "Ann"],
            "genre": draw.choice(["bc", "nw", "of no known kind"]),
            "clusters": [mentions[::3], mentions[1::3]],
        }
    )


def nothing() -> Arrays:
    """Return what is read of a damaged example."""
    return READING.arrays({"ids": [], "pieces": [], "sentences": [], "speakers": [], "genre": "", "clusters": []})


def batch_of(*documents: Arrays) -> dict[str, Tensor]:
    filling = {"input_ids": PADDING, "attention_mask": 0}
    return {name: padded_arrays([each[name] for each in documents], filling.get(name, -1)) for name in documents[0]}


@pytest.mark.parametrize("seed", range(6))
def test_kept_spans_are_the_best_taken_one_after_the_other_unless_they_cross(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens, most = 40, 6
    scores = torch.randn(3, tokens, most, generator=generator)
    if seed == 0:
        # Each crosses the next and is worse than it, so that what is taken is known from one end of the text only.
        scores[0] = torch.arange(tokens * most).view(tokens, most) / 100
    scores = scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.4, -torch.inf)
    firsts = torch.arange(tokens)[:, None].expand(tokens, most)
    scores = scores.masked_fill(firsts + torch.arange(most) >= tokens, -torch.inf)
    wanted = torch.tensor([16, 9, 1])
    spans = kept_spans(scores, wanted, 16)
    for table, count, first, last, exist in zip(scores, wanted, spans.firsts, spans.lasts, spans.exist, strict=True):
        scored = [
            (float(table[start, width]), (start, start + width))
            for start in range(tokens)
            for width in range(most)
            if table[start, width] > -torch.inf
        ]
        expected = greedy(sorted(scored, reverse=True)[:32], int(count))
        assert list(zip(first[exist].tolist(), last[exist].tolist(), strict=True)) == expected
        assert exist.tolist() == [True] * len(expected) + [False] * (16 - len(expected))


@pytest.mark.parametrize("mention_loss", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_spans_antecedents_loss_and_gradients_are_those_of_plain_loops(kind: str, mention_loss: float) -> None:
    model = model_of(kind, mention_loss=mention_loss).double()
    oracle = KINDS[kind](model)
    # One document is read whole, the other in segments, and one is damaged.
    documents = [document(1, words=14), document(2, words=34)]
    assert [len(each["input_ids"]) for each in documents] == [1, 3]
    expected = [oracle.document(each) for each in documents]
    loss = torch.stack([each[3] for each in expected]).mean()
    assert loss > 1
    named = {name: each for name, each in model.named_parameters() if "_global" not in name}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)

    output = model(**batch_of(*documents, nothing()))
    torch.testing.assert_close(output.loss, loss)
    output.loss.backward()
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        assert gradient is not None, name
        torch.testing.assert_close(parameter.grad, gradient, msg=lambda told, name=name: f"{name}: {told}")
    for number, (spans, scores, antecedents, _) in enumerate(expected):
        count = len(spans)
        assert output.spans[number].tolist() == [list(each) for each in spans] + [[-1, -1]] * (
            output.spans.shape[1] - count
        )
        np.testing.assert_allclose(output.mention_scores[number, :count].tolist(), scores)
        assert output.antecedents[number, :count].tolist() == antecedents
    assert any(of >= 0 for each in expected for of in each[2])
    assert (output.spans[2] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_finds_what_each_document_alone_does_and_damaged_ones_do_not_count(kind: str) -> None:
    model = model_of(kind, dropout=0.4)
    documents = [document(4, words=12), document(5, words=36)]
    model.eval()
    together = model(**batch_of(*documents))
    losses = []
    for number, each in enumerate(documents):
        alone = model(**batch_of(each))
        count = alone.spans.shape[1]
        torch.testing.assert_close(together.spans[number, :count], alone.spans[0])
        torch.testing.assert_close(
            together.mention_scores[number, :count], alone.mention_scores[0], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(together.antecedents[number, :count], alone.antecedents[0])
        losses.append(alone.loss)
    torch.testing.assert_close(together.loss, torch.stack(losses).mean())

    model.train()
    damaged = batch_of(nothing())
    assert (CLUSTERS.predictions(damaged), CLUSTERS.predictions(batch_of(*documents, nothing()))) == (0, 2)
    loss = CLUSTERS.loss(model, damaged | {"facts": CLUSTERS.facts(model, damaged)})
    loss.backward()
    assert loss == 0
    assert all(
        parameter.grad is not None and not parameter.grad.any()
        for name, parameter in model.coreference.named_parameters()
    )
    assert document_clusters(model.eval(), [nothing()], singletons=True, padding=PADDING) == [[]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_document_is_learned_by_heart(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, spans_per_word=2.0, max_antecedents=50, head_size=32, singletons=True).train()
    model.initialise()
    clusters = [[(0, 1), (5, 5), (9, 10)], [(3, 3), (7, 7)], [(12, 12)]]
    arrays = READING.arrays(
        {
            "ids": list(range(3, 3 + 17)), "pieces": [1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 3], "sentences": [5, 4, 4],
            "speakers": [], "genre": "nw", "clusters": clusters,
        }
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch_of(arrays)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 20
    found = document_clusters(model.eval(), [arrays], singletons=True, padding=PADDING)
    assert found == [clusters]
    assert document_clusters(model, [arrays], singletons=False, padding=PADDING) == [clusters[:2]]

    model.save_pretrained(tmp_path / "model")
    loaded = LongformerForCoreference.from_pretrained(tmp_path / "model")
    assert loaded.own == model.own
    assert document_clusters(loaded, [arrays], singletons=True, padding=PADDING) == found


@pytest.mark.parametrize(("kind", "head_size"), [("coarse_to_fine", 3000), ("start_to_end", 3072)])
def test_a_head_needs_less_than_two_gib_for_a_document_of_4096_tokens(kind: Any, head_size: int) -> None:
    tokens = 4096
    with without_weights():
        config = LongformerConfig(num_hidden_layers=1, coreference={"kind": kind, "head_size": head_size})
        head = LongformerForCoreference(config).coreference
        hidden = torch.empty(1, tokens, config.hidden_size, requires_grad=True)
        numbers = torch.zeros(1, tokens, dtype=torch.long)
        count = math.ceil(0.4 * tokens)  # each token is a word, the most there can be
        with LiveMemory() as memory:
            documents = Documents(numbers, numbers, numbers, numbers[:, 0])
            spans, found = head(hidden, documents, numbers[:, 0], count, None)
            antecedent_losses(found, spans.numbers).sum().backward()
    parameters = sum(each.nbytes for each in head.parameters())
    assert memory.peak > parameters, "their gradients are among it"
    # The weights themselves and what Adam knows of them.
    assert memory.peak + 3 * parameters < 2 * 2**30


def test_a_config_that_describes_no_such_model_is_refused() -> None:
    for told, words in (({"dropout": 1.5}, "dropout"), ({"heads": 3}, "heads"), ({"kind": "best"}, "kind")):
        with pytest.raises(LongformerError, match=words):
            CoreferenceConfig.of(LongformerConfig(coreference=told))


def test_tokens_of_segments_are_read_where_most_stands_around_them() -> None:
    ids = np.arange(100, 160)
    arrays = READING.arrays(
        {
            "ids": ids, "pieces": [2, 0, *[1] * 58], "sentences": [20, 40], "speakers": ["Bo", ""], "genre": "nw",
            "clusters": [[(0, 0), (1, 2), (3, 5)], [(0, 1)]],
        }
    )  # fmt: skip
    segments = arrays["input_ids"]
    # 24 tokens at a time, 18 further on each time, and the last ends with the document.
    assert [(row[0], row[1], row[-2], row[-1]) for row in segments.tolist()] == [
        (0, 100, 123, 2), (0, 118, 141, 2), (0, 136, 159, 2),
    ]  # fmt: skip
    places = arrays["token_positions"]
    assert segments.flatten()[places].tolist() == ids.tolist()
    # Of 118 to 123, which two segments have, each reads half.
    assert np.bincount(places // 26).tolist() == [21, 18, 21]
    assert arrays["labels"].tolist() == [[0, 1, 0], [3, 5, 0]]
    assert arrays["speaker_ids"].tolist() == [1] * 20 + [0] * 40
    assert arrays["genre"] == 2
