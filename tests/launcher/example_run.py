"""Writes a small run in the documented layout with the code that real runs use, but without training anything."""

import math
from dataclasses import asdict
from pathlib import Path

from launcher.config.run_config import RunConfig
from launcher.reporting.run_report import write_summary
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.characters.report import numbers_of
from launcher.tasks.registry import task_of_run
from longformer.files import write_json
from longformer.training.metrics_file import MetricsFile
from longformer.training.records import PhaseInfo, Progress, StepRecord

QUICKSTART = Path(__file__).with_name("example.yaml")
"""A run file like the shipped quickstart, with numbers that only tests depend on."""
SHIPPED = Path(__file__).parents[2] / "configs" / "run"
SMALL = ("phases.0.steps=30", "phases.0.warmup_steps=5", "phases.1.steps=20", "phases.2.steps=10")


def records(config: RunConfig) -> list[StepRecord]:
    """Every step of the run, with a loss that falls as a power of the tokens."""
    result: list[StepRecord] = []
    tokens = 0
    for index, phase in enumerate(config.phases):
        for step in range(1, phase.total_steps + 1):
            tokens += phase.positions_per_step
            bits = 1.5 + 6.5 * (1 + tokens / 5000) ** -0.4
            result.append(
                StepRecord(
                    phase=phase.name,
                    phase_index=index,
                    step=step,
                    global_step=len(result) + 1,
                    tokens=tokens,
                    loss=bits * math.log(2),
                    learning_rate=phase.learning_rate,
                    gradient_norm=0.5,
                    tokens_per_second=9000.0 / (index + 1),
                    mfu=0.3,
                    seconds=phase.positions_per_step / 9000.0 * (index + 1),
                    saving_seconds=0.0,
                    skipped_steps=0,
                )
            )
    return result


def write_steps(run: Run, steps: list[StepRecord]) -> None:
    """Append steps to the run's metrics as rank 0 does, going on behind the last one before them."""
    info = PhaseInfo(name="any", index=0, steps=1, sequence_length=1, batch_size=1, ranks=1)
    file = MetricsFile(run.paths.metrics_file)
    file.on_phase_start(info, Progress(global_step=steps[0].global_step - 1))
    for record in steps:
        file.on_step_end(record)
    file.on_phase_end(info, {})


def write_result(run: Run, index: int) -> None:
    """Write the result of a phase: scores that fall from phase to phase, and the config of its model."""
    config = run.config
    phase = config.phases[index]
    steps = [record for record in records(config) if record.phase_index == index]
    score = {
        "bits_per_character": 3.0 - 0.4 * index,
        "scored": 5000,
        "scored_without_full_context": 1536,
        "sequence_length": 2048,
        "stride": 512,
    }
    evaluation = {
        "validation": score,
        "seconds": sum(record.seconds for record in steps),
        "steps": phase.total_steps,
        "tokens": phase.total_steps * phase.positions_per_step,
        "peak_memory_bytes": 300_000_000 * (index + 1),
    }
    if index == len(config.phases) - 1:
        evaluation["test"] = score | {"bits_per_character": score["bits_per_character"] + 0.05}
    result = run.result_directory(index)
    (result / "model").mkdir(parents=True)
    write_json(result / "model" / "config.json", asdict(config.character_model(index, 100)))
    write_json(result / "evaluation.json", evaluation)


def write_numbers(run: Run) -> TaskReport:
    """Write the part of a finished run's report that needs no weights, and return what its task adds to it."""
    task = task_of_run(run)
    layouts = [task.layout(index, ranks=2, on_gpu=False) for index in range(len(run.config.phases))]
    memory = [task.cost(index).memory(layout).total for index, layout in enumerate(layouts)]
    addition = numbers_of(run.config, task.data, run, memory)
    write_summary(run, addition, parameters=1)
    return addition
