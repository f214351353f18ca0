"""The same global batches for every number of ranks and of loader workers, before and after a resume."""

import multiprocessing
import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.loading.batches import Batch, Batches
from data_pipeline.sampling.base import Sequences
from data_pipeline.sampling.masking import IGNORED, MaskedSequences, Masking
from data_pipeline.sampling.mixed import MixedSequences
from data_pipeline.sampling.text import DocumentSequences, PackedSequences
from data_pipeline.shards.prepared import PreparedData

GLOBAL_BATCH = 12


def mixed_sequences(documents: PreparedData, *, seed: int = 1) -> Sequences:
    """Packed sequences of two sources: everything that makes an order, at once."""
    train = PackedSequences(documents.split("train", open_shards=3), sequence_length=48, seed=seed)
    other = PackedSequences(documents.split("validation", open_shards=3), sequence_length=48, seed=seed)
    return MixedSequences([(train, 3.0), (other, 1.0)], seed=seed)


def batches_of(documents: PreparedData, sequences: Sequences | None = None, **options: int) -> Batches:
    return Batches(
        MaskedSequences(sequences or mixed_sequences(documents), Masking(documents.manifest.tokenizer, seed=1)),
        **({"global_batch_size": GLOBAL_BATCH, "micro_batch_size": 1, "rank": 0, "world_size": 1} | options),  # type: ignore[arg-type]
    )


def global_batches(
    documents: PreparedData,
    *,
    steps: int,
    world_size: int = 1,
    workers: int = 0,
    micro: int = 1,
    state: dict | None = None,
) -> tuple[list[np.ndarray], dict]:
    """Return what all ranks together train on in each step (inputs, masks and labels), and the state behind it."""
    ranks = []
    for rank in range(world_size):
        batches = batches_of(documents, rank=rank, world_size=world_size, workers=workers, micro_batch_size=micro)
        if state:
            batches.load_state_dict(state)
        taken = list(islice(batches, steps * GLOBAL_BATCH // world_size // micro))
        ranks.append([np.stack([values.numpy() for values in batch.values()], axis=1) for batch in taken])
        after = batches.state_dict()
    share = GLOBAL_BATCH // world_size // micro
    by_step = [
        np.concatenate([batch for rank in ranks for batch in rank[step * share : (step + 1) * share]])
        for step in range(steps)
    ]
    return by_step, after


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_global_batches_are_the_same_for_every_number_of_ranks_and_workers_across_resume(
    world_size: int, workers: int, documents_once: PreparedData
) -> None:
    straight, _ = global_batches(documents_once, steps=6)
    before, state = global_batches(documents_once, steps=2, world_size=world_size, workers=workers)
    assert state == {"position": 2 * GLOBAL_BATCH, "fingerprint": state["fingerprint"]}
    other = 4 - world_size or 1
    after, _ = global_batches(documents_once, steps=4, world_size=other, workers=2 - workers, micro=2, state=state)
    for expected, found in zip(straight, before + after, strict=True):
        assert np.array_equal(expected, found)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_counts_batches_that_were_handed_out_not_those_made_ahead(
    workers: int, documents_once: PreparedData
) -> None:
    batches = batches_of(documents_once, workers=workers, micro_batch_size=4)
    list(islice(batches, 2 * 3 + 2))
    assert batches.state_dict()["position"] == 2 * GLOBAL_BATCH


def test_signals_to_loader_workers_change_nothing(documents_once: PreparedData) -> None:
    expected = [batch["input_ids"] for batch in islice(batches_of(documents_once), 60)]
    stream = iter(batches_of(documents_once, workers=2))
    found = [next(stream)["input_ids"]]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, number)
    found += [batch["input_ids"] for batch in islice(stream, 59)]
    assert all(worker.is_alive() for worker in workers)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_shapes_and_kinds_are_as_agreed(documents_once: PreparedData) -> None:
    batch = batches_of(documents_once, micro_batch_size=4).mock_batch()
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert {(values.dtype, tuple(values.shape)) for values in batch.values()} == {(torch.int64, (4, 48))}
    assert batch["attention_mask"].all()
    assert (batch["labels"] != IGNORED).any()


def test_sequences_of_one_document_are_padded_to_the_longest_of_the_batch(documents_once: PreparedData) -> None:
    sequences = DocumentSequences(documents_once.split("train"), sequence_length=500, seed=1)
    batch = next(iter(batches_of(documents_once, sequences, micro_batch_size=12)))
    lengths = [sequences.length(position) for position in range(12)]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_ids"].shape == (12, max(lengths))
    padding = batch["attention_mask"] == 0
    assert set(batch["input_ids"][padding].tolist()) == {documents_once.manifest.tokenizer.special.padding}
    assert set(batch["labels"][padding].tolist()) == {IGNORED}


@settings(max_examples=20)
@given(bucket_batches=st.integers(1, 9), window=st.integers(0, 5))
def test_gathering_by_length_moves_sequences_only_within_a_window_and_loses_none(
    bucket_batches: int, window: int, documents_once: PreparedData
) -> None:
    sequences = DocumentSequences(documents_once.split("train"), sequence_length=500, seed=1)
    batches = batches_of(documents_once, sequences, bucket_batches=bucket_batches)
    size = bucket_batches * GLOBAL_BATCH
    span = range(window * size, (window + 1) * size)
    found = batches.positions(span)
    assert sorted(found) == list(span)
    lengths = np.array([sequences.length(position) for position in found]).reshape(bucket_batches, -1)
    order = np.argsort(lengths[:, 0], kind="stable")
    if bucket_batches > 1:
        assert (np.diff(np.sort(lengths[order], axis=1).ravel()) >= 0).all() or len(set(lengths[:, 0])) < bucket_batches


def test_gathering_by_length_saves_most_of_the_padding(documents_once: PreparedData) -> None:
    def padding(bucket_batches: int) -> float:
        sequences = DocumentSequences(documents_once.split("train"), sequence_length=500, seed=1)
        batches = batches_of(documents_once, sequences, micro_batch_size=12, bucket_batches=bucket_batches)
        taken: list[Batch] = list(islice(batches, 16))
        tokens = sum(int(batch["attention_mask"].sum()) for batch in taken)
        return 1 - tokens / sum(batch["attention_mask"].numel() for batch in taken)

    assert padding(1) > 0.3
    assert padding(16) < 0.1


def test_another_order_is_refused_on_resume(documents_once: PreparedData) -> None:
    state = batches_of(documents_once).state_dict()
    for other in (
        batches_of(documents_once, mixed_sequences(documents_once, seed=2)),
        batches_of(documents_once, bucket_batches=2),
    ):
        with pytest.raises(DataError, match="the data has changed since the checkpoint"):
            other.load_state_dict(state)


def test_fewer_sequences_than_a_global_batch_are_refused_with_the_number_that_would_do(
    documents_once: PreparedData,
) -> None:
    sequences = PackedSequences(documents_once.split("test"), sequence_length=1_000, seed=1)
    allowed = sequences.per_epoch
    with pytest.raises(
        DataError, match=rf"gives {allowed} sequences an epoch, .* of 400: .* or a batch of at most {allowed}$"
    ):
        batches_of(documents_once, sequences, global_batch_size=400)
    next(iter(batches_of(documents_once, sequences, global_batch_size=allowed)))
    with pytest.raises(DataError, match=r"gives 0 sequences an epoch, .* 12: .* or use sequences of at most [\d,]+$"):
        batches_of(documents_once, PackedSequences(documents_once.split("test"), sequence_length=10**6, seed=1))


def test_one_shard_is_enough_for_four_ranks(documents_once: PreparedData) -> None:
    split = documents_once.split("validation")
    assert len(split.shards) == 1
    sequences = PackedSequences(split, sequence_length=48, seed=1)
    parts = [
        next(iter(batches_of(documents_once, sequences, rank=rank, world_size=4, micro_batch_size=3)))
        for rank in range(4)
    ]
    whole = next(iter(batches_of(documents_once, sequences, micro_batch_size=12)))
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), whole["input_ids"])
