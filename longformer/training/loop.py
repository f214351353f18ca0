"""The training loop of one phase. Everything that only watches is a callback.

The loop promises: progress counts applied updates only; all ranks stop at the same step border, after a
committed checkpoint; a phase that ends has a checkpoint of its last step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from longformer.errors import LongformerError
from longformer.training.checkpoints.write import CheckpointWriter
from longformer.training.engine import StepOutcome, TrainingEngine
from longformer.training.evaluations import IntervalEvaluation
from longformer.training.guards import LossGuard
from longformer.training.objectives import BatchSource, Lengths, Objective
from longformer.training.records import Callback, PhaseInfo, PhaseOutcome, Progress, StepRecord
from longformer.training.schedules import Schedule

MAX_CONSECUTIVE_SKIPS = 50
"""A loss scale of 2^16 is halved into range within 20 skips; more means that training is broken."""


class RollBack(Exception):
    """A loss was refused, and training is to go on from the last checkpoint without that batch.

    Attributes:
        data: state of the batch source before the batch.
    """

    def __init__(self, reason: str, data: dict[str, Any]) -> None:
        super().__init__(reason)
        self.data = data


@dataclass(frozen=True, kw_only=True)
class MfuMeter:
    """What model FLOPs utilisation is measured against."""

    flops: Callable[[Lengths], float]
    """Returns the useful operations to train on a sequence: none on padding, and none that are done again."""
    peak_flops: float
    """Of all ranks' devices together, per second."""

    def mfu(self, flops: float, seconds: float) -> float:
        """Returns the share of the peak that went into the model, 0..1."""
        return flops / seconds / self.peak_flops


def train_phase(
    engine: TrainingEngine,
    batches: BatchSource,
    objective: Objective,
    *,
    phase: PhaseInfo,
    schedule: Schedule,
    mfu_meter: MfuMeter,
    checkpoints: CheckpointWriter,
    progress: Progress,
    guard: LossGuard,
    evaluations: IntervalEvaluation | None = None,
    callbacks: Sequence[Callback] = (),
    stop_requested: Callable[[], bool] = lambda: False,
    heartbeat: Callable[[], None] = lambda: None,
) -> tuple[PhaseOutcome, Progress]:
    """Trains from `progress` to the end of the phase, or to the step border after a request to stop.

    A checkpoint is committed before every evaluation: whatever ends an evaluation, the run goes on with it again.

    Raises:
        LongformerError: a loss was refused, too many steps were skipped, a checkpoint cannot be written.
        RollBack: a loss was refused, and that is the policy.
    """
    stream = iter(batches)
    consecutive_skips = 0
    for callback in callbacks:
        callback.on_phase_start(phase, progress)
    started = time.perf_counter()
    saved, saving_seconds = started, 0.0
    while True:
        if (
            evaluations is not None
            and progress.evaluated_step != progress.step
            and schedule.evaluation_is_due(progress.step, phase.steps)
        ):
            checkpoints.finish()
            progress = evaluations.after(progress)
            started = time.perf_counter()
        if progress.step == phase.steps or (evaluations is not None and evaluations.are_enough(progress)):
            checkpoints.finish()
            return PhaseOutcome.COMPLETED, progress
        learning_rate = schedule.learning_rate_at(progress.step, phase.steps)
        data_before = batches.state_dict()
        outcome = engine.train_step(
            stream,
            objective,
            learning_rate=learning_rate,
            guard=guard,
            flops=mfu_meter.flops,
            stop_requested=stop_requested(),
            checkpoint_requested=schedule.checkpoint_is_overdue(time.perf_counter() - saved),
        )
        heartbeat()
        if outcome.refusal:
            _follow_policy(guard, f"phase {phase.name}, step {progress.step + 1}: {outcome.refusal}", data_before)
        seconds = time.perf_counter() - started
        started += seconds
        if outcome.applied:
            consecutive_skips = 0
            guard.record(outcome.loss)
            progress = _advanced(progress, outcome, seconds)
            record = _record(phase, progress, outcome, learning_rate, seconds, saving_seconds, mfu_meter)
            saving_seconds = 0.0
            for callback in callbacks:
                callback.on_step_end(record)
        else:
            consecutive_skips += 1
            progress = replace(progress, skipped_steps=progress.skipped_steps + 1, seconds=progress.seconds + seconds)
            if consecutive_skips == MAX_CONSECUTIVE_SKIPS:
                raise LongformerError(
                    f"phase {phase.name}: after step {progress.step}, {consecutive_skips} batches in a row were thrown "
                    f"away; the last because {outcome.refusal or 'its gradients are not finite'} in "
                    f"{engine.settings.precision}; lower the learning rate or use more precision"
                )
        is_due = outcome.checkpoint_requested or schedule.checkpoint_is_due(progress.step, phase.steps)
        if outcome.stop_requested or (outcome.applied and is_due):
            for callback in callbacks:
                callback.on_save()
            checkpoints.save(progress, batches.state_dict())
            heartbeat()
            saving_seconds = time.perf_counter() - started
            started += saving_seconds
            saved = started
        if outcome.stop_requested and progress.step < phase.steps:
            checkpoints.finish()
            return PhaseOutcome.STOPPED, progress


def _follow_policy(guard: LossGuard, reason: str, data_before: dict[str, Any]) -> None:
    if guard.settings.on_bad_loss == "stop":
        raise LongformerError(reason)
    print(reason, flush=True)
    if guard.settings.on_bad_loss == "roll_back":
        raise RollBack(reason, data_before)


def _advanced(progress: Progress, outcome: StepOutcome, seconds: float) -> Progress:
    return replace(
        progress,
        step=progress.step + 1,
        global_step=progress.global_step + 1,
        tokens=progress.tokens + outcome.tokens,
        seconds=progress.seconds + seconds,
    )


def _record(
    phase: PhaseInfo,
    progress: Progress,
    outcome: StepOutcome,
    learning_rate: float,
    seconds: float,
    saving_seconds: float,
    mfu_meter: MfuMeter,
) -> StepRecord:
    return StepRecord(
        phase=phase.name,
        phase_index=phase.index,
        step=progress.step,
        global_step=progress.global_step,
        tokens=progress.tokens,
        loss=outcome.loss,
        learning_rate=learning_rate,
        gradient_norm=outcome.gradient_norm,
        tokens_per_second=outcome.tokens / seconds,
        mfu=mfu_meter.mfu(outcome.flops, seconds),
        seconds=seconds,
        saving_seconds=saving_seconds,
        skipped_steps=progress.skipped_steps,
    )
