"""What one rank does in one phase: build, restore, train, evaluate, commit the result.

Every backend calls `train_one_phase` on every rank; nothing here knows how the ranks were started, nor what the
task of the run is.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from launcher.config.run_config import RunConfig
from launcher.config.sections import PhaseSection
from launcher.planning.fit import settled, this_machine
from launcher.runs.run import Run
from launcher.tasks.base import Evaluation, EvaluationRequest, Task
from launcher.tasks.registry import task_of_run
from launcher.tracking.callbacks import MlflowCallback, SystemMetricsCallback
from launcher.training.evaluations import PhaseEvaluations
from launcher.training.phase_result import StopRequested, commit_result, leaving_if_asked, peak_memory_bytes
from launcher.training.phases import PhaseTask, fitting_checkpoint
from launcher.training.trial import Trial
from longformer.benchmarks.memory import peak_memory, resident_memory
from longformer.costs.peak import measured_peak_flops
from longformer.errors import LongformerError
from longformer.models.common.compiling import compile_layers
from longformer.training.checkpoints.manifest import Manifest, damage
from longformer.training.checkpoints.store import checkpoint_path
from longformer.training.checkpoints.write import CheckpointWriter, restore, restore_weights_and_optimizer
from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import DTYPES, EngineSettings
from longformer.training.guards import LOSS_HISTORY, GuardSettings, LossGuard
from longformer.training.loop import MfuMeter, RollBack, train_phase
from longformer.training.metrics_file import MetricsFile, losses_until
from longformer.training.objectives import BatchSource
from longformer.training.records import Callback, PhaseInfo, PhaseOutcome, Progress
from longformer.training.schedules import Schedule

_TRIAL_STEPS = 3
"""The first is slower than all that follow and not counted."""
_MOST_ACCUMULATED_IN_TRIAL = 2
"""Forward passes of a step that are tried; the others take as long as these."""


def train_one_phase(
    task: PhaseTask,
    ranks: Ranks,
    *,
    stop_requested: Callable[[], bool],
    heartbeat: Callable[[], None],
    watchers: Sequence[Callback] = (),
) -> PhaseOutcome:
    """Carries out a phase on this rank, from its checkpoint where it has one, to its committed result.

    Args:
        task: the phase.
        ranks: this rank among the others.
        stop_requested: says whether this rank was asked to stop.
        heartbeat: called at every sign of progress.
        watchers: callbacks of this rank, beside those that only the first rank has.

    Raises:
        LongformerError, DataError: training cannot go on; the message is one sentence.
    """
    work = _PhaseWork(_settled(task, ranks), ranks)
    batches, engine = work.batches(), work.engine()
    mfu_meter = work.mfu_meter()
    # From here on nothing but training draws random numbers; each rank drops out other features.
    torch.manual_seed(work.config.seed + 1000 * (task.phase_index + 1) + ranks.rank)
    progress = work.restore(engine, batches)
    print(
        f"phase {work.phase.name}: {progress.step} of {work.phase.total_steps} steps done; training goes on", flush=True
    )
    checkpoints = work.checkpoint_writer(engine)
    callbacks = [*watchers, *work.callbacks()]

    def evaluate(split: str, *, within_phase: bool) -> Evaluation:
        report_progress = leaving_if_asked(ranks, stop_requested, heartbeat)
        return work.evaluate(engine, split, report_progress, within_phase=within_phase)

    evaluations = PhaseEvaluations(
        work.run,
        task.phase_index,
        lambda: evaluate("validation", within_phase=True),
        writes=ranks.is_first,
    )
    try:
        outcome, progress = train_phase(
            engine,
            batches,
            work.parts.objective,
            phase=work.info(),
            schedule=work.schedule(),
            mfu_meter=mfu_meter,
            checkpoints=checkpoints,
            progress=progress,
            guard=work.guard(progress),
            evaluations=evaluations.within(),
            callbacks=callbacks,
            stop_requested=stop_requested,
            heartbeat=heartbeat,
        )
    except RollBack as bad:
        checkpoints.finish()
        if ranks.is_first:
            work.run.paths.skip_batch(task.phase_index, bad.data["position"], str(bad))
        torch.distributed.barrier()
        return PhaseOutcome.ROLLED_BACK
    except StopRequested:
        return PhaseOutcome.STOPPED
    if outcome is PhaseOutcome.STOPPED:
        return outcome
    result_step = progress.step if progress.best_step is None else progress.best_step
    if result_step != progress.step:
        work.restore_best(engine, result_step)
    try:
        evaluated = {
            split: evaluate(split, within_phase=False) for split in work.parts.evaluated_splits(task.phase_index)
        }
    except StopRequested:
        return PhaseOutcome.STOPPED
    evaluation = {split: each.scores for split, each in evaluated.items()} | {
        "seconds": progress.seconds,
        "result_step": result_step,
        "steps": progress.step,
        "tokens": progress.tokens - work.tokens_before,
        "peak_memory_bytes": peak_memory_bytes(engine),
    }
    weights = engine.full_weights()
    if ranks.is_first:
        commit_result(
            work.run.result_directory(task.phase_index),
            write_model=lambda target: work.write_model(weights, evaluated, target),
            evaluation=evaluation,
            manifest=checkpoints.manifest(progress, batches.state_dict()),
        )
    for callback in callbacks:
        callback.on_phase_end(work.info(), evaluation)
    torch.distributed.barrier()
    return outcome


def try_one_phase(
    task: PhaseTask, ranks: Ranks, *, stop_requested: Callable[[], bool], heartbeat: Callable[[], None]
) -> PhaseOutcome:
    """Takes the steps on this rank; the first rank writes down what they took.

    Args:
        task, ranks, stop_requested, heartbeat: as in `train_one_phase`.
    """
    on_gpu = ranks.device.type == "cuda"
    held_before = 0 if on_gpu else resident_memory()
    work = _PhaseWork(_settled(task, ranks), ranks)
    engine, stream = work.engine(most_accumulated=_MOST_ACCUMULATED_IN_TRIAL), iter(work.batches())
    guard = LossGuard(GuardSettings(on_bad_loss="stop", spike_threshold=None))
    learning_rate = work.schedule().learning_rate_at(0, work.phase.total_steps)
    steps = []
    for _ in range(_TRIAL_STEPS):
        started = time.perf_counter()
        outcome = engine.train_step(stream, work.parts.objective, learning_rate=learning_rate, guard=guard)
        steps.append((time.perf_counter() - started, outcome.tokens))
        heartbeat()
        if ranks.any_wants(stop_requested()):
            return PhaseOutcome.STOPPED
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    seconds, tokens = min(steps[1:], key=lambda step: step[0] / max(1, step[1]))
    batching = work.phase.batching(ranks.world_size)
    trial = Trial(
        micro_batch_size=batching.micro_batch_size,
        accumulation_steps=batching.accumulation_steps,
        seconds_per_step=seconds * batching.accumulation_steps / engine.settings.accumulation_steps,
        tokens_per_second=tokens / seconds,
        memory=ranks.largest(peak - held_before),
    )
    if ranks.is_first:
        trial.write(task.run, task.phase_index)
    return PhaseOutcome.COMPLETED


def _settled(task: PhaseTask, ranks: Ranks) -> PhaseTask:
    """Returns the phase with a value for each `auto`, the same on all ranks: what fits into the smallest device."""
    config, index = task.run.config, task.phase_index
    if not config.leaves_open(index):
        return task
    on_gpu = ranks.device.type == "cuda"
    device = this_machine(1 + ranks.largest(ranks.local_rank))  # without GPUs the ranks of a machine share it
    device = replace(device, memory=-ranks.largest(-device.memory))
    config = settled(task_of_run(task.run).cost(index), config, index, device, ranks=ranks.world_size, on_gpu=on_gpu)
    phase, recomputed = config.phases[index], config.training.activation_checkpointing
    print(
        f"phase {phase.name}: micro-batches of {phase.micro_batch_size}, layers {'' if recomputed else 'not '}computed "
        f"again, chosen for {device.memory / 1e9:.0f} GB a rank ({device.name})",
        flush=True,
    )
    return replace(task, run=replace(task.run, config=config))


@dataclass(frozen=True)
class _PhaseWork:
    """The parts of a phase that are the same for every task, made from the run file and the phase's task."""

    task: PhaseTask
    ranks: Ranks

    @property
    def run(self) -> Run:
        return self.task.run

    @property
    def config(self) -> RunConfig:
        return self.run.config

    @property
    def phase(self) -> PhaseSection:
        return self.config.phases[self.task.phase_index]

    @cached_property
    def parts(self) -> Task[Any, Any]:
        """What only the run's task knows."""
        return task_of_run(self.run)

    def batches(self) -> BatchSource:
        """Returns the batches of this rank."""
        return self.parts.batches(
            self.task.phase_index, self.ranks, self.run.paths.skipped_batches(self.task.phase_index)
        )

    def engine(self, *, most_accumulated: int | None = None) -> TrainingEngine:
        """Returns the model that the phase starts from and its optimizer, ready to learn.

        Args:
            most_accumulated: forward passes per step where the phase has more.

        Raises:
            LongformerError: the model has no such layers to freeze, or the device cannot compute in this precision.
        """
        if self.config.training.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS sums in an order of its own
            torch.use_deterministic_algorithms(True)
        torch.manual_seed(self.config.seed)  # of fresh weights
        model = self.parts.build_model(self.task.phase_index, self.origin).to(self.ranks.device)
        self.parts.freeze_layers(model)
        if self.config.training.compiles(on_gpu=self.ranks.device.type == "cuda"):
            compile_layers(model)
        settings = self.engine_settings()
        if most_accumulated is not None:
            settings = replace(settings, accumulation_steps=min(settings.accumulation_steps, most_accumulated))
        return TrainingEngine(model, settings, self.ranks)

    def evaluate(
        self,
        engine: TrainingEngine,
        split: str,
        report_progress: Callable[[int, int], None],
        *,
        within_phase: bool,
    ) -> Evaluation:
        request = EvaluationRequest(
            split=split,
            within_phase=within_phase,
            after_phase=not within_phase,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            report_progress=report_progress,
        )
        with engine.whole_model() as model:
            evaluation = self.parts.evaluate(model, self.task.phase_index, request)
            evaluation.settle(model)
        return evaluation

    def write_model(
        self, weights: Mapping[str, torch.Tensor], evaluations: Mapping[str, Evaluation], target: Path
    ) -> None:
        """Writes the model, and beside its directory the predictions about held-out data."""
        self.parts.write_model(self.task.phase_index, weights, self.origin, target, evaluations=evaluations.values())
        for split, evaluation in evaluations.items():
            self.parts.write_table(target.parent, split, evaluation)

    @property
    def origin(self) -> Path | None:
        """The model directory the phase starts from: the result before, or the run's start; None = fresh weights."""
        if self.task.phase_index > 0 and not self.task.is_trial:
            return self._previous_result / "model"
        return self.run.paths.start_directory if self.run.paths.start_directory.exists() else None

    @property
    def _previous_result(self) -> Path:
        return self.run.result_directory(self.task.phase_index - 1)

    @property
    def tokens_before(self) -> int:
        """Tokens trained on in the phases before."""
        return Manifest.read(self._previous_result).progress.tokens if self.task.phase_index > 0 else 0

    def engine_settings(self) -> EngineSettings:
        training, batching = self.config.training, self.phase.batching(self.ranks.world_size)
        return EngineSettings(
            zero_stage=training.zero_stage,
            precision=training.precision,
            micro_batch_size=batching.micro_batch_size,
            accumulation_steps=batching.accumulation_steps,
            gradient_clipping=training.gradient_clipping,
            weight_decay=training.weight_decay,
            layer_decay=training.layer_decay,
            head_learning_rate_factor=training.head_learning_rate_factor,
            adam_betas=training.adam_betas,
            adam_epsilon=training.adam_epsilon,
            offload_optimizer=training.offload_optimizer,
        )

    def restore(self, engine: TrainingEngine, batches: BatchSource) -> Progress:
        """Brings everything into the state the task asks for and returns where that is."""
        if self.task.resume_from:
            manifest = restore(self.task.resume_from, engine)
            batches.load_state_dict(manifest.data)
            return manifest.progress
        if self.task.phase_index == 0:
            return Progress()
        if self.task.optimizer_from:
            restore_weights_and_optimizer(self.task.optimizer_from, engine)
        return Manifest.read(self._previous_result).progress.at_start_of_next_phase()

    def restore_best(self, engine: TrainingEngine, step: int) -> None:
        """Puts weights and optimizer back to where the best evaluation was; all ranks must call it.

        Raises:
            LongformerError: the checkpoint was damaged meanwhile.
        """
        best = checkpoint_path(self.run.checkpoints_directory(self.task.phase_index), step)
        world_size, zero_stage = self.ranks.world_size, self.config.training.zero_stage
        if self.ranks.is_first:
            problem = damage(best)
            if problem:
                raise LongformerError(
                    f"the best checkpoint of phase {self.phase.name} cannot be read any more ({problem}); resume goes "
                    "back to one before it"
                )
            fitting_checkpoint(best, ranks=world_size, zero_stage=zero_stage)
        torch.distributed.barrier()
        restore_weights_and_optimizer(fitting_checkpoint(best, ranks=world_size, zero_stage=zero_stage), engine)

    def info(self) -> PhaseInfo:
        return PhaseInfo(
            name=self.phase.name,
            index=self.task.phase_index,
            steps=self.phase.total_steps,
            sequence_length=self.phase.sequence_length,
            batch_size=self.phase.batch_size,
            ranks=self.ranks.world_size,
        )

    def schedule(self) -> Schedule:
        training = self.config.training
        minutes = training.checkpoint_every_minutes
        return Schedule(
            learning_rate=self.phase.learning_rate,
            warmup_steps=self.phase.warmup_steps,
            decay=self.phase.decay,
            decay_part=self.phase.decay_part,
            checkpoint_every_steps=training.checkpoint_every_steps
            if minutes is None
            else training.permanent_checkpoint_every_steps,
            checkpoint_every_seconds=None if minutes is None else 60 * minutes,
            evaluate_every_steps=self.phase.evaluate_every_steps,
        )

    def guard(self, progress: Progress) -> LossGuard:
        training = self.config.training
        recent = losses_until(
            self.run.paths.metrics_file, progress.global_step, phase_index=self.task.phase_index, most=LOSS_HISTORY
        )
        settings = GuardSettings(on_bad_loss=training.on_bad_loss, spike_threshold=training.spike_threshold)
        return LossGuard(settings, recent)

    def mfu_meter(self) -> MfuMeter:
        dtype = DTYPES[self.config.training.precision]
        return MfuMeter(
            flops=lru_cache(self.parts.cost(self.task.phase_index, self.origin).flops),
            peak_flops=self.ranks.world_size * measured_peak_flops(self.ranks.device, dtype),
        )

    def callbacks(self) -> list[Callback]:
        """Returns what watches the training from this rank."""
        callbacks: list[Callback] = []
        if self.ranks.is_first:
            callbacks += [MetricsFile(self.run.paths.metrics_file), MlflowCallback(self.run)]
        if self.ranks.is_first_of_machine:
            callbacks.append(SystemMetricsCallback(self.run))
        return callbacks

    def checkpoint_writer(self, engine: TrainingEngine) -> CheckpointWriter:
        return CheckpointWriter(
            directory=self.run.checkpoints_directory(self.task.phase_index),
            engine=engine,
            phase=self.phase.name,
            phase_index=self.task.phase_index,
            config_fingerprint=self.config.fingerprint(),
            kept=self.config.training.checkpoints_kept,
            permanent_every=self.config.training.permanent_checkpoint_every_steps,
            in_background=self.config.training.checkpoint_in_background,
            copies=self.config.checkpoint_copies(self.task.phase_index),
        )
