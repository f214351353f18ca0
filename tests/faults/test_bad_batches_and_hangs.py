"""Bad batches and hung ranks in real runs: nothing bad is learned, and who hangs is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.loading.batches import Batches
from data_pipeline.sampling.text import StreamSequences
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.stream import TokenStream
from launcher.training.phases import Status
from tests.data_pipeline.preparing import prepare_characters
from tests.faults.tiny_run import TinyRun, rank_processes, tiny_config

Runs = Callable[..., TinyRun]
STEPS = (6, 24)
BAD_STEP = 20
"""In the second phase, when there is enough to judge by; counted from 0."""


@pytest.fixture
def text_with_a_bad_batch(tmp_path: Path, text: PreparedData) -> PreparedData:
    """The prepared text, but what stands in one global batch of the second phase is nothing like the rest."""
    config = tiny_config(tmp_path, text)
    phase = config.phases[1]
    batches = Batches(
        StreamSequences(text.split("train"), sequence_length=phase.sequence_length, seed=config.seed + 1),
        global_batch_size=phase.batch_size,
        micro_batch_size=phase.batch_size,
        rank=0,
        world_size=1,
    )
    batches.load_state_dict(batches.state_dict() | {"position": BAD_STEP * phase.batch_size})
    train = TokenStream(text.split("train"))
    content = text.vocabulary.decode(train.read(0, len(train)))
    for sequence in next(iter(batches))["tokens"]:
        good = text.vocabulary.decode(sequence.numpy())
        assert content.count(good) == 1
        content = content.replace(good, "~" * len(good))
    held_out = [TokenStream(text.split(name)) for name in ("validation", "test")]
    content += "".join(text.vocabulary.decode(split.read(0, len(split))) for split in held_out)
    (tmp_path / "bad").mkdir()
    source = tmp_path / "bad" / "words.txt"
    source.write_text(content)
    return prepare_characters("text", source=source, output=tmp_path / "bad" / "prepared")


def run_on(directory: Path, data: PreparedData, **training: object) -> TinyRun:
    config = tiny_config(directory, data, steps=STEPS, spike_threshold=5.0, **training)
    return TinyRun(directory / "run", config, data)


def test_a_spike_stops_the_run_before_anything_is_learned_from_it(
    tmp_path: Path, text_with_a_bad_batch: PreparedData
) -> None:
    run = run_on(tmp_path, text_with_a_bad_batch)
    outcome = run.go()
    assert outcome.status is Status.FAILED
    assert f"phase long, step {BAD_STEP + 1}: the loss jumped to" in outcome.message


@pytest.mark.slow
def test_after_rolling_back_the_run_ends_as_if_the_bad_batch_had_never_been_there(
    tmp_path: Path, text_with_a_bad_batch: PreparedData
) -> None:
    run = run_on(tmp_path, text_with_a_bad_batch, on_bad_loss="roll_back")
    assert run.go().status is Status.COMPLETED
    (left_out,) = json.loads((run.run.paths.root / "left-out-batches.json").read_text())
    assert left_out["position"] == BAD_STEP * 4
    assert len(run.warnings) == 1
    assert "going on from the last checkpoint without that batch" in run.warnings[0]

    (tmp_path / "other").mkdir()
    never_met = run_on(tmp_path / "other", text_with_a_bad_batch, on_bad_loss="roll_back")
    never_met.run.paths.skip_batch(1, BAD_STEP * 4, "known to be bad")
    assert never_met.go().status is Status.COMPLETED
    assert run.losses() == never_met.losses()


def test_a_hung_rank_is_named_and_the_others_say_where_they_wait(new_run: Runs) -> None:
    run = new_run(stall_seconds=3, checkpoint_every_steps=100)
    with run.disturbed_at(5, lambda: rank_processes()[1].suspend()):
        outcome = run.go()
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith("no step for 3 seconds: ")
    assert re.search(r"rank (0 is in \w+ \(\w+\.py:\d+\); rank 1|1 is in \w+ \(\w+\.py:\d+\))", outcome.message)
    assert re.search(r"rank [01] gives no sign of life", outcome.message)
    assert rank_processes() == []
