from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.sampling.mixed import MixedSequences
from data_pipeline.sampling.shuffle import ShuffledExamples
from data_pipeline.sampling.text import DocumentSequences, PackedSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT
from data_pipeline.tokenizers.subword import train_tokenizer
from tests.data_pipeline.preparing import prepare_documents
from tests.data_pipeline.random_texts import random_texts


def packed(documents: PreparedData, *, length: int = 64, split: str = "train", seed: int = 1) -> PackedSequences:
    return PackedSequences(
        documents.split(split, open_shards=3), sequence_length=length, seed=seed, tell_documents=True
    )


def joined_text(documents: PreparedData, epochs: int) -> tuple[list[int], list[int]]:
    """Return the tokens of all documents joined by </s>, and which document on the line each belongs to."""
    split = documents.split("train", open_shards=3)
    line = ShuffledExamples(split, seed=1)
    tokens, owners = [], []
    # The packed line and the line of whole examples shuffle alike.
    for number, piece in enumerate(line.pieces(0, epochs * line.length)):
        length = int(split.lengths(piece.shard, TEXT)[piece.example])
        document = split.read_tokens(piece.shard, piece.example, TEXT, 0, length)
        assert document is not None
        tokens += [*document.tolist(), 2]
        owners += [number] * (length + 1)
    return tokens, owners


@settings(max_examples=20)
@given(length=st.integers(3, 500), start=st.integers(0, 200))
def test_packed_sequences_are_the_joined_documents_cut_into_pieces(
    length: int, start: int, documents_once: PreparedData
) -> None:
    tokens, owners = joined_text(documents_once, epochs=2)
    sequences = packed(documents_once, length=length)
    positions = range(start, min(start + 20, len(tokens) // (length - 2)))
    for position in positions:
        sequence = sequences.sequence(position)
        cut = slice(position * (length - 2), (position + 1) * (length - 2))
        assert sequence["input_ids"].tolist() == [0, *tokens[cut], 2]
        assert sequence["attention_mask"].tolist() == [1] * length
        assert sequences.length(position) == length
        borders = [piece.stop - piece.start for piece in sequences.pieces(position)]
        assert borders == np.unique(owners[cut], return_counts=True)[1].tolist()
        owned = np.array([owners[cut][0], *owners[cut], owners[cut][-1]])
        assert sequence["document_ids"].tolist() == np.unique(owned, return_inverse=True)[1].tolist()


def test_one_document_sequences_hold_every_document_once_between_begin_and_end(documents_once: PreparedData) -> None:
    sequences = DocumentSequences(documents_once.split("train"), sequence_length=100, seed=1)
    found = [sequences.sequence(position)["input_ids"] for position in range(sequences.per_epoch)]
    assert [len(tokens) for tokens in found] == [sequences.length(position) for position in range(sequences.per_epoch)]
    assert len({tokens.tobytes() for tokens in found}) == sequences.per_epoch
    assert {(tokens[0], tokens[-1]) for tokens in found} == {(0, 2)}
    assert max(map(len, found)) == 100


@pytest.fixture(scope="module")
def mixed(documents_once: PreparedData) -> MixedSequences:
    sources = [
        (packed(documents_once), 0.7),
        (packed(documents_once, split="validation"), 0.2),
        (packed(documents_once, split="test"), 0.1),
    ]
    return MixedSequences(sources, seed=5)


def test_every_source_gives_its_exact_share_of_every_thousand_sequences(mixed: MixedSequences) -> None:
    for cycle in range(3):
        sources = Counter(mixed.place(position)[0] for position in range(cycle * 1_000, (cycle + 1) * 1_000))
        assert sources == {0: 700, 1: 200, 2: 100}


def test_every_sequence_of_every_source_comes_once_and_near_its_place(mixed: MixedSequences) -> None:
    places = [mixed.place(position) for position in range(5_000)]
    for source, share in enumerate([700, 200, 100]):
        own = [position for of, position in places if of == source]
        assert sorted(own) == list(range(5 * share))
        assert all(abs(place - position) < share for place, position in enumerate(own))


def test_sources_are_interleaved_not_in_blocks(mixed: MixedSequences) -> None:
    rare = [position for position in range(1_000) if mixed.place(position)[0] == 2]
    assert max(np.diff(rare)) < 100
    assert rare != list(range(rare[0], rare[0] + 100))


def test_a_sequence_of_the_mix_is_the_row_of_its_source(mixed: MixedSequences, documents_once: PreparedData) -> None:
    alone = [packed(documents_once), *(packed(documents_once, split=split) for split in ("validation", "test"))]
    for position in range(0, 1_000, 97):
        source, own = mixed.place(position)
        assert np.array_equal(mixed.sequence(position)["input_ids"], alone[source].sequence(own)["input_ids"])


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
def test_weights_become_shares_within_a_thousandth(documents_once: PreparedData, weights: list[float]) -> None:
    sequences = packed(documents_once)
    mix = (
        MixedSequences([(sequences, weight) for weight in weights], seed=0)
        if min(weights) / sum(weights) > 0.001
        else None
    )
    if mix is not None:
        counts = Counter(mix.place(position)[0] for position in range(1_000))
        for number, weight in enumerate(weights):
            assert abs(counts[number] - 1_000 * weight / sum(weights)) < 1


def test_an_epoch_of_a_mix_ends_where_the_first_source_begins_again(
    mixed: MixedSequences, documents_once: PreparedData
) -> None:
    sources = [packed(documents_once, split=split) for split in ("train", "validation", "test")]
    furthest = [0, 0, 0]
    for position in range(mixed.per_epoch // 1_000 * 1_000):
        source, own = mixed.place(position)
        furthest[source] = max(furthest[source], own)
    assert all(place < sequences.per_epoch for place, sequences in zip(furthest, sources, strict=True))
    beyond = {mixed.place(position) for position in range(mixed.per_epoch + 1_000)}
    assert any(own >= sources[source].per_epoch for source, own in beyond)


def test_impossible_mixes_are_refused(documents_once: PreparedData, small_corpus: Path, tmp_path: Path) -> None:
    sequences = packed(documents_once)
    for sources in ([], [(sequences, 0.0)], [(sequences, 1.0), (sequences, 1e-6)]):
        with pytest.raises(ValueError, match=r"positive weights|too small"):
            MixedSequences(sources, seed=0)
    other = train_tokenizer(random_texts(50, seed=9), vocabulary_size=280)
    there = prepare_documents(source=small_corpus, tokenizer=other, output=tmp_path / "other", task_map=in_this_process)
    with pytest.raises(DataError, match="was prepared with another tokenizer than"):
        MixedSequences([(sequences, 1.0), (packed(there), 1.0)], seed=0)


def test_the_fingerprint_is_of_everything_that_decides_the_order(documents_once: PreparedData) -> None:
    one, other = packed(documents_once), packed(documents_once, split="validation")
    variants = [
        one,
        other,
        packed(documents_once, length=65),
        packed(documents_once, seed=2),
        PackedSequences(documents_once.split("train", open_shards=4), sequence_length=64, seed=1),
        DocumentSequences(documents_once.split("train", open_shards=3), sequence_length=64, seed=1),
        MixedSequences([(one, 1.0), (other, 1.0)], seed=1),
        MixedSequences([(one, 1.0), (other, 2.0)], seed=1),
        MixedSequences([(one, 1.0), (other, 1.0)], seed=2),
    ]
    assert len({sequences.fingerprint for sequences in variants}) == len(variants)
    assert packed(documents_once).fingerprint == one.fingerprint
