"""Fine-tuning with `longformer train` beside transformers' Trainer and Longformer: the same start, the same batches.

    python benchmarks/fine_tuning_speed.py configs/run/imdb_minilm.yaml --output speed.json

takes turns, a process each: a few steps of the run, and as many of a Trainer that loads the run's own start and is
given the very micro-batches that the run trained on. Tokens per second count no padding, and leave out the first steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from launcher.config.load import load
from launcher.runs.paths import MetricsFollower
from launcher.tasks.registry import task_of
from longformer.benchmarks.machine import machine
from longformer.files import write_json
from longformer.training.distributed import Ranks

WARM_UP = 2
"""Steps that set up memory and threads and are not counted."""
Steps = list[dict[str, float]]
"""Seconds, tokens and loss of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_file", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--trainer-starts-from", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    overrides = [
        *arguments.overrides,
        "phases.0.epochs=null",
        f"phases.0.steps={arguments.steps}",
        "phases.0.warmup_steps=0",
    ]
    if arguments.trainer_starts_from is not None:
        print(json.dumps(steps_of_trainer(arguments.run_file, overrides, arguments.trainer_starts_from)))
        return
    turns: dict[str, list[Steps]] = {"ours": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.turns):
            run = Path(folder) / str(turn)
            turns["ours"].append(steps_of_run(arguments.run_file, overrides, run))
            command = [sys.executable, *sys.argv, "--trainer-starts-from", str(run / "start")]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            turns["Trainer"].append(json.loads(printed.splitlines()[-1]))
            print(f"turn {turn + 1}:", *(f"{name} {speed(taken[-1]):,.0f} tokens/s" for name, taken in turns.items()))
    speeds = {name: [round(speed(steps), 1) for steps in taken] for name, taken in turns.items()}
    times_as_fast = median(speeds["ours"]) / median(speeds["Trainer"])
    print(f"ours is {times_as_fast:.2f} times as fast")
    if arguments.output is not None:
        write_json(arguments.output, {
            "command": " ".join(["python", *sys.argv]),
            "machine": machine("cpu"),
            "tokens_per_second": speeds,
            "times_as_fast": round(times_as_fast, 2),
            "losses": {name: [round(step["loss"], 4) for step in taken[0]] for name, taken in turns.items()},
            "tokens_of_steps": [step["tokens"] for step in turns["ours"][0]],
        })  # fmt: skip


def steps_of_run(run_file: Path, overrides: list[str], directory: Path) -> Steps:
    """Trains a run and returns its steps."""
    command = ["longformer", "train", str(run_file), *overrides, "evaluation.limit_documents=1"]
    subprocess.run([*command, f"--run-directory={directory}"], check=True, stdout=sys.stderr)
    records = MetricsFollower(directory / "metrics.jsonl").new_records()
    before = [0, *(record["tokens"] for record in records)]
    return [
        {"seconds": record["seconds"], "tokens": record["tokens"] - tokens, "loss": record["loss"]}
        for record, tokens in zip(records, before, strict=False)
    ]


def steps_of_trainer(run_file: Path, overrides: list[str], start: Path) -> Steps:
    """Trains transformers' model of the same class in its Trainer on the batches of the run, and returns its steps."""
    import transformers

    config = load(run_file, overrides)
    task, phase = task_of(config), config.phases[0]
    ranks = Ranks(0, 1, torch.device("cpu"), 0)
    micro_batch_size = phase.batching(1).micro_batch_size
    accumulated = phase.batch_size // micro_batch_size
    taken: Steps = [{"tokens": 0, "seconds": 0.0, "loss": 0.0} for _ in range(phase.steps)]
    rows: list[dict[str, Any]] = []
    batches = iter(task.batches(0, ranks, frozenset()))
    for step in taken:
        for _ in range(accumulated):
            batch = next(batches)
            step["tokens"] += int(batch["attention_mask"].sum())
            rows += [{name: values[number] for name, values in batch.items()} for number in range(micro_batch_size)]

    class Timing(transformers.TrainerCallback):
        since = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.since = time.perf_counter()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            now = time.perf_counter()
            taken[state.global_step - 1]["seconds"], self.since = now - self.since, now

        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
            if "loss" in logs:
                taken[state.global_step - 1]["loss"] = logs["loss"]

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    model = getattr(transformers, task.model_class.__name__).from_pretrained(start, **task.model_changes)
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder, max_steps=phase.steps, learning_rate=phase.learning_rate, warmup_steps=phase.warmup_steps,
            max_grad_norm=config.training.gradient_clipping, per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=accumulated, use_cpu=True, save_strategy="no", logging_steps=1, report_to=[],
            disable_tqdm=True, seed=config.seed,
        )  # fmt: skip
        trainer = InOrder(
            model, settings, train_dataset=rows, callbacks=[Timing()], data_collator=torch.utils.data.default_collate
        )
        trainer.train()
    return taken


def speed(steps: Steps) -> float:
    """Returns tokens per second without the first steps."""
    counted = steps[WARM_UP:]
    return sum(step["tokens"] for step in counted) / sum(step["seconds"] for step in counted)


if __name__ == "__main__":
    main()
