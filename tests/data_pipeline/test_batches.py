import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.loading.batches import Batches
from data_pipeline.sampling.order import sample_at
from data_pipeline.sampling.text import StreamSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream


def rank_batches(
    prepared: PreparedData, *, rank: int = 0, world_size: int = 1, micro: int = 1, batch: int = 8, length: int = 300
) -> Batches:
    return Batches(
        StreamSequences(prepared.split("validation"), sequence_length=length, seed=3),
        global_batch_size=batch,
        micro_batch_size=micro,
        rank=rank,
        world_size=world_size,
    )


def global_batches(prepared: PreparedData, *, steps: int, world_size: int, micro: int, position: int = 0) -> np.ndarray:
    """Return (steps, global batch, length + 1): what all ranks together train on, rank after rank."""
    per_rank = []
    for rank in range(world_size):
        batches = rank_batches(prepared, rank=rank, world_size=world_size, micro=micro)
        batches.load_state_dict({**batches.state_dict(), "position": position})
        taken = [batch["tokens"] for batch in islice(batches, steps * 8 // (world_size * micro))]
        per_rank.append(torch.stack(taken).reshape(steps, 8 // world_size, -1))
    return torch.cat(per_rank, dim=1).numpy()


@pytest.mark.parametrize(("world_size", "micro"), [(1, 2), (1, 8), (2, 1), (2, 4), (4, 1), (4, 2), (8, 1)])
def test_global_batches_are_the_same_for_every_number_of_ranks(
    world_size: int, micro: int, prepared_once: PreparedData
) -> None:
    alone = global_batches(prepared_once, steps=50, world_size=1, micro=1)
    assert np.array_equal(global_batches(prepared_once, steps=50, world_size=world_size, micro=micro), alone)


def test_batches_are_the_sequences_that_the_order_names(prepared_once: PreparedData) -> None:
    stream = TokenStream(prepared_once.split("validation"))
    tokens = stream.read(0, len(stream))
    batches = rank_batches(prepared_once, micro=8)
    for step, batch in enumerate(islice(batches, 100)):  # 100 steps of 8 from 333 sequences: more than two epochs
        for row, sequence in enumerate(batch["tokens"]):
            start = 300 * sample_at(step * 8 + row, epoch_size=(len(tokens) - 1) // 300, seed=3)
            assert np.array_equal(sequence.numpy(), tokens[start : start + 301])


def test_one_epoch_trains_on_every_token_of_every_sequence_once(prepared_once: PreparedData) -> None:
    stream = TokenStream(prepared_once.split("validation"))
    batches = rank_batches(prepared_once, batch=1)
    inputs = [batch["tokens"][0, :-1].numpy() for batch in islice(batches, batches.sequences.per_epoch)]
    expected = stream.read(0, batches.sequences.per_epoch * 300).reshape(-1, 300)
    assert sorted(map(bytes, np.array(inputs, dtype=np.uint8))) == sorted(map(bytes, expected))


def test_batches_are_long_tensors_of_the_agreed_shape(prepared_once: PreparedData) -> None:
    batch = next(iter(rank_batches(prepared_once, micro=4)))
    assert set(batch) == {"tokens"}
    assert batch["tokens"].dtype == torch.int64
    assert batch["tokens"].shape == (4, 301)


@settings(max_examples=25)
@given(
    stop_after=st.integers(0, 60),
    before=st.sampled_from([(1, 1), (2, 2), (4, 1)]),
    after=st.sampled_from([(1, 4), (2, 1), (4, 2)]),
)
def test_resume_on_other_ranks_sees_the_same_samples(
    stop_after: int, before: tuple[int, int], after: tuple[int, int], prepared_once: PreparedData
) -> None:
    world_size, micro = before
    batches = rank_batches(prepared_once, world_size=world_size, micro=micro)
    list(islice(batches, stop_after * 8 // (world_size * micro)))
    state = batches.state_dict()
    assert state == {"position": stop_after * 8, "fingerprint": state["fingerprint"]}

    straight = global_batches(prepared_once, steps=stop_after + 5, world_size=1, micro=1)
    resumed = global_batches(prepared_once, steps=5, world_size=after[0], micro=after[1], position=state["position"])
    assert np.array_equal(resumed, straight[stop_after:])


def test_state_in_the_middle_of_a_step_repeats_the_step(prepared_once: PreparedData) -> None:
    batches = rank_batches(prepared_once, micro=2)
    list(islice(batches, 4 + 3))
    assert batches.state_dict()["position"] == 8


def test_mock_batch_looks_like_a_batch_and_moves_nothing(prepared_once: PreparedData) -> None:
    batches = rank_batches(prepared_once, micro=4)
    mock = batches.mock_batch()["tokens"]
    assert batches.state_dict()["position"] == 0
    first = next(iter(batches))["tokens"]
    assert (mock.shape, mock.dtype) == (first.shape, first.dtype)
    assert mock.max() < len(prepared_once.vocabulary)


def test_changed_data_is_refused_on_resume(prepared_once: PreparedData) -> None:
    with pytest.raises(DataError, match="the data has changed since the checkpoint: its fingerprint was 0123"):
        rank_batches(prepared_once).load_state_dict({"position": 8, "fingerprint": "0123456789abcdef"})


def test_too_few_sequences_are_refused_with_the_numbers_that_would_do(prepared_once: PreparedData) -> None:
    assert prepared_once.tokens("validation") == 100_000
    with pytest.raises(DataError, match=r"of 3,000 gives 33 .* batch of 64.* at most 1,562 or a batch of at most 33$"):
        rank_batches(prepared_once, batch=64, length=3_000)
    for batch, length in ((64, 1_562), (33, 3_000)):
        next(iter(rank_batches(prepared_once, batch=batch, length=length)))
    with pytest.raises(DataError, match=r"sequences of 100,000 gives 0 .* sequences of at most 12,499$"):
        rank_batches(prepared_once, batch=8, length=100_000)


@pytest.mark.parametrize(
    "sizes", [{"batch": 6, "micro": 4}, {"world_size": 3}, {"rank": 1}, {"length": 0}, {"batch": 8, "micro": 0}]
)
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, int], prepared_once: PreparedData) -> None:
    with pytest.raises(ValueError, match=r"not a whole number|must be positive"):
        rank_batches(prepared_once, **sizes)


def test_a_process_ends_though_its_loader_workers_are_still_in_use(prepared_once: PreparedData) -> None:
    program = (
        "import sys; from data_pipeline.shards.prepared import PreparedData;"
        "from data_pipeline.loading.batches import Batches;"
        "from data_pipeline.sampling.text import StreamSequences;"
        "split = PreparedData.open(sys.argv[1]).split('validation');"
        "sizes = dict(global_batch_size=8, micro_batch_size=8, rank=0, world_size=1);"
        "sequences = StreamSequences(split, sequence_length=300, seed=3);"
        "batches = iter(Batches(sequences, **sizes, workers=2)); next(batches)"
    )
    subprocess.run([sys.executable, "-c", program, prepared_once.location], check=True, timeout=300)
