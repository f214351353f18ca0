"""The loop counts what was learned, stops where it promises, and names the step that went wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.checkpoints.store import committed_checkpoints, step_of
from longformer.training.checkpoints.write import CheckpointWriter
from longformer.training.loop import MAX_CONSECUTIVE_SKIPS, MfuMeter, RollBack, train_phase
from longformer.training.objectives import Objective, lengths_of_streams, next_character_loss
from longformer.training.records import Callback, PhaseInfo, PhaseOutcome, Progress, StepRecord
from longformer.training.schedules import Schedule
from tests.training.rank_group import in_ranks
from tests.training.small_model import LENGTH, SETTINGS, global_batch, no_spikes, small_engine

PHASE = PhaseInfo(name="short", index=0, steps=6, sequence_length=LENGTH, batch_size=4, ranks=2)
SCHEDULE = Schedule(learning_rate=0.01, warmup_steps=0, decay="constant", decay_part=0.2, checkpoint_every_steps=4)


class Batches:
    """Global batches by number, each rank its half; the state is how many were taken."""

    def __init__(self, rank: int) -> None:
        self.rank, self.taken = rank, 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            self.taken += 1
            yield self.mock_batch()

    def mock_batch(self) -> dict[str, Tensor]:
        return {"tokens": global_batch(self.taken, 4).chunk(2)[self.rank]}

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]


class Listener(Callback):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.saves = 0

    def on_step_end(self, record: StepRecord) -> None:
        self.records.append(record)

    def on_save(self) -> None:
        self.saves += 1


def run_loop(
    ranks: Any,
    directory: Path,
    disturbance: Callable[[int, Tensor, Any], Tensor],
    precision: Any,
    on_bad_loss: Any = "stop",
    schedule: Schedule = SCHEDULE,
) -> Any:
    """Train a phase whose losses pass through `disturbance(batches taken, loss, model)`."""
    engine = small_engine(ranks, replace(SETTINGS, precision=precision))
    batches, listener = Batches(ranks.rank), Listener()

    def loss(model: Any, batch: Any) -> Tensor:
        return disturbance(batches.taken, next_character_loss(model, batch), model.module)

    outcome, progress = train_phase(
        engine,
        batches,
        Objective(loss, lengths_of_streams),
        phase=PHASE,
        schedule=schedule,
        mfu_meter=MfuMeter(flops=lambda lengths: 3.0 * lengths.read, peak_flops=1e6),
        checkpoints=CheckpointWriter(directory, engine, "short", 0, "c0ffee", kept=5),
        progress=Progress(),
        guard=no_spikes(on_bad_loss),
        callbacks=[listener],
    )
    return outcome, progress, listener.records, listener.saves


def undisturbed(taken: int, loss: Tensor, model: Any) -> Tensor:
    return loss


def without_gradient_in_batches_2_and_3(taken: int, loss: Tensor, model: Any) -> Tensor:
    return loss + (model.output.bias.float().sum() * 0).sqrt() if taken in (2, 3) else loss


def never_with_gradient(taken: int, loss: Tensor, model: Any) -> Tensor:
    return loss + (model.output.bias.float().sum() * 0).sqrt()


def lost_in_batch_3(taken: int, loss: Tensor, model: Any) -> Tensor:
    return loss * torch.inf if taken == 3 else loss


def test_a_phase_reports_every_step_and_checkpoints_at_the_interval_and_the_end(tmp_path: Path) -> None:
    for outcome, progress, records, saves in in_ranks(2, run_loop, tmp_path, undisturbed, "fp32"):
        assert outcome is PhaseOutcome.COMPLETED
        assert (progress.step, progress.global_step, progress.tokens) == (6, 6, 6 * 4 * LENGTH)
        assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
        assert saves == 2
        assert [record.saving_seconds > 0 for record in records] == [False] * 4 + [True, False]
        for record in records:
            assert record.tokens_per_second == pytest.approx(4 * LENGTH / record.seconds)
            assert record.mfu == pytest.approx(3.0 * record.tokens_per_second / 1e6)
    assert [path.name for path in committed_checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize(("seconds", "saved"), [(1e-9, [1, 2, 3, 4, 5, 6]), (1e9, [6])])
def test_checkpoints_by_time_are_written_when_it_has_passed_on_any_rank(
    seconds: float, saved: list[int], tmp_path: Path
) -> None:
    by_time = replace(SCHEDULE, checkpoint_every_steps=None, checkpoint_every_seconds=seconds)
    in_ranks(2, run_loop_by_time, tmp_path, by_time)
    assert [step_of(path) for path in committed_checkpoints(tmp_path)][-5:] == saved[-5:]


def run_loop_by_time(ranks: Any, directory: Path, schedule: Schedule) -> Any:
    """Train a phase in which the clock of rank 1 alone asks for checkpoints."""
    mine = schedule if ranks.rank == 1 else replace(schedule, checkpoint_every_seconds=None)
    return run_loop(ranks, directory, undisturbed, "fp32", schedule=mine)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_skipped_batch_is_counted_and_is_no_progress(precision: Any, tmp_path: Path) -> None:
    disturbed = in_ranks(2, run_loop, tmp_path, without_gradient_in_batches_2_and_3, precision)
    for outcome, progress, records, _ in disturbed:
        assert outcome is PhaseOutcome.COMPLETED
        assert (progress.step, progress.skipped_steps, progress.tokens) == (6, 2, 6 * 4 * LENGTH)
        assert [record.skipped_steps for record in records] == [0, 2, 2, 2, 2, 2]
        assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    last = Manifest.read(committed_checkpoints(tmp_path)[-1])
    assert last.data == {"taken": 8}, "the skipped batches are not seen again after a resume"


def test_skipping_without_end_is_an_error(tmp_path: Path) -> None:
    for message in in_ranks(2, failure, tmp_path, never_with_gradient, "bf16"):
        assert message.startswith(f"phase short: after step 0, {MAX_CONSECUTIVE_SKIPS} batches in a row")


def test_a_loss_that_is_not_finite_names_phase_step_and_rank(tmp_path: Path) -> None:
    assert (
        in_ranks(2, failure, tmp_path, lost_in_batch_3, "fp32")
        == ["phase short, step 3: the loss is inf on rank 0"] * 2
    )


def test_a_refused_batch_is_skipped_where_that_is_the_policy(tmp_path: Path) -> None:
    for outcome, progress, records, _ in in_ranks(2, run_loop, tmp_path, lost_in_batch_3, "fp32", "skip"):
        assert outcome is PhaseOutcome.COMPLETED
        assert (progress.step, progress.skipped_steps) == (6, 1)
        assert [record.skipped_steps for record in records] == [0, 0, 1, 1, 1, 1]


def test_a_refused_batch_asks_to_roll_back_to_before_it_where_that_is_the_policy(tmp_path: Path) -> None:
    asked = in_ranks(2, roll_back, tmp_path, lost_in_batch_3, "fp32", "roll_back")
    assert asked == [({"taken": 2}, "phase short, step 3: the loss is inf on rank 0")] * 2


def roll_back(ranks: Any, *arguments: Any) -> tuple[dict[str, Any], str]:
    with pytest.raises(RollBack) as caught:
        run_loop(ranks, *arguments)
    return caught.value.data, str(caught.value)


def failure(ranks: Any, *arguments: Any) -> str:
    with pytest.raises(LongformerError) as caught:
        run_loop(ranks, *arguments)
    return str(caught.value)
