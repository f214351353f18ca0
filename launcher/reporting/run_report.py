"""The report of a finished run: what each phase cost and brought, as JSON, Markdown, tables and an HTML page.

What every run has, and what its task adds. All comes from the run directory and the prepared data; writing it again
gives the same report.

report/{summary.json, summary.md, report.html, NAME.png, tables/NAME.json}, each written atomically.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.reporting.figures import curve
from launcher.reporting.html import Figure, Page, Section, Table, write_page
from launcher.reporting.terminal import terminal, terminal_table
from launcher.reporting.text import clock, flattened, markdown_table, short
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.tasks.base import Task, TaskReport
from longformer.files import write_atomically, write_json

MAX_POINTS = 4000
"""Steps that a curve is drawn through; of a longer run every so many-th."""
MAX_SCORES = 2
"""Of the table of phases, which is to fit into a terminal."""


def report_run(run: Run, task: Task[Any, Any], console: Console | None = None) -> None:
    """Writes the report of a run whose phases are all done, and prints its table.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    addition, parameters = task.report(run), task.parameters(run.newest_result() / "model")
    write_summary(run, addition, parameters=parameters)
    write_html_report(run, addition.sections, parameters=parameters)
    write_tables(run, {**_prediction_tables(run, task), **addition.tables})
    show_summary(run, addition, parameters=parameters, console=console or terminal())


def write_summary(run: Run, addition: TaskReport, *, parameters: int) -> None:
    """Writes summary.json, summary.md and the pictures of the task."""
    evaluations = run.evaluations()
    folder = run.paths.report_directory
    folder.mkdir(exist_ok=True)
    for name, picture in addition.figures.items():
        write_atomically(folder / f"{name}.png", picture)
    phases = [
        {
            "name": phase.name,
            "sequence_length": phase.sequence_length,
            "tokens_per_second": evaluation["tokens"] / evaluation["seconds"],
            **evaluation,
        }
        for phase, evaluation in zip(run.config.phases, evaluations, strict=True)
    ]
    summary = {
        "name": run.config.name,
        "task": run.config.task,
        "parameters": parameters,
        "ranks": run.paths.identity().ranks,
        "saving_seconds": _saving_seconds(run),
        **addition.numbers,
        "phases": phases,
    }
    write_json(folder / "summary.json", summary)
    table = markdown_table(*phase_table(run, addition))
    (scores,) = evaluation_section([phase.name for phase in run.config.phases], evaluations).parts
    assert isinstance(scores, Table)
    text = "\n\n".join(
        [
            f"# {run.config.name}",
            f"{_title(run, parameters)}. Scores in the first table are on the validation split after the phase.",
            table,
            *verdict(run, addition),
            markdown_table(scores.headings, scores.rows),
        ]
    )
    write_atomically(folder / "summary.md", f"{text}\n".encode())


def show_summary(run: Run, addition: TaskReport, *, parameters: int, console: Console) -> None:
    """Prints the table of phases and the test scores."""
    headings, rows = phase_table(run, addition)
    title = f"{run.config.name}: {_title(run, parameters)}"
    console.print(terminal_table(headings, rows, title=title))
    for sentence in verdict(run, addition):
        console.print(sentence, highlight=False)


def phase_table(run: Run, addition: TaskReport) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows: what each phase was, cost, and scored on the validation split."""
    words = run.config.words
    scores = words.scores[:MAX_SCORES]
    names = [words.score_short, *scores[1:]]
    headings = ["phase", "length", *addition.columns, "steps", "tokens", "tokens/s", "time", *names]
    rows = [
        [
            phase.name,
            f"{phase.sequence_length:,}",
            *(column[index] for column in addition.columns.values()),
            f"{evaluation['steps']:,}",
            short(evaluation["tokens"]),
            f"{evaluation['tokens'] / evaluation['seconds']:,.0f}",
            clock(evaluation["seconds"]),
            *(f"{evaluation['validation'][score]:.3f}" for score in scores),
        ]
        for index, (phase, evaluation) in enumerate(zip(run.config.phases, run.evaluations(), strict=True))
    ]
    return headings, rows


def verdict(run: Run, addition: TaskReport) -> list[str]:
    """Returns the test scores, which step's model it is, what the task says of them, and what checkpoints took."""
    test = run.evaluations()[-1]["test"]
    scores = ", ".join(f"{test[score]:.3f} {score.replace('_', ' ')}" for score in run.config.words.scores)
    return [
        f"Test: {scores}. Checkpoints took {_saving_seconds(run):.1f} s from training.",
        *best_steps(run),
        *addition.notes,
    ]


def best_steps(run: Run) -> list[str]:
    """Returns a sentence for every phase whose result is its best step."""
    sentences = []
    for phase, evaluation in zip(run.config.phases, run.evaluations(), strict=True):
        if phase.best is None:
            continue
        metric = phase.best.metric
        if not math.isfinite(evaluation["validation"].get(metric, math.nan)):
            sentences.append(f"No evaluation in phase {phase.name} had a {metric}: the model is that of its last step.")
            continue
        value = evaluation["validation"][metric]
        said = f"The model of phase {phase.name} is that of step {evaluation['result_step']:,}, the best by {metric} "
        said += f"({value:.4g} on the validation split)"
        if evaluation["steps"] < phase.total_steps:
            said += f"; training ended after step {evaluation['steps']:,} of {phase.total_steps:,}, since "
            said += f"{phase.best.patience} evaluations in a row had brought nothing better"
        sentences.append(f"{said}.")
    return sentences


def write_tables(run: Run, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes tables of predictions as MLflow shows them: columns and rows; `scores` of a line are columns too."""
    folder = run.paths.report_directory / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        flat = [_flat_line(line) for line in lines]
        columns = list(flat[0]) if flat else []
        write_json(folder / f"{name}.json", {"columns": columns, "data": [list(line.values()) for line in flat]})


def _prediction_tables(run: Run, task: Task[Any, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the predictions about held-out data that the last phase has left, by the names of their files."""
    files = sorted(run.newest_result().glob(f"{task.table_name}-*.jsonl"))
    return {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files}


def _flat_line(line: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in line.items() if not isinstance(value, Mapping)}
    return {**plain, **line.get("scores", {})}


def _title(run: Run, parameters: int) -> str:
    return f"{parameters:,} parameters, {run.paths.identity().ranks} ranks"


def _saving_seconds(run: Run) -> float:
    return sum(record["saving_seconds"] for record in MetricsFollower(run.paths.metrics_file).new_records())


def write_html_report(run: Run, sections: Sequence[Section], *, parameters: int) -> Path:
    """Writes report/report.html of a run whose phases are all done, and returns its path.

    Args:
        run: the run.
        sections: what the task has to say, shown after the curves.
        parameters: number of the model's weights.

    Raises:
        LongformerError: the run directory is damaged.
    """
    config, identity = run.config, run.paths.identity()
    records = MetricsFollower(run.paths.metrics_file).new_records()
    evaluations = run.evaluations()
    page = Page(
        title=config.name,
        facts=(
            ("task", config.task),
            ("parameters", f"{parameters:,}"),
            ("ranks", str(identity.ranks)),
            ("started", identity.created),
            ("training time", clock(sum(evaluation["seconds"] for evaluation in evaluations))),
            ("tokens", short(sum(evaluation["tokens"] for evaluation in evaluations))),
            ("run file", f"{run.paths.config_file.name}, fingerprint {identity.config_fingerprint[:12]}"),
        ),
        sections=(
            learning_section(records, config.words.bits.replace("_", " "), validation_curves(run)),
            evaluation_section([phase.name for phase in config.phases], evaluations),
            *sections,
            speed_section(records),
            memory_section([phase.name for phase in config.phases], evaluations),
        ),
    )
    path = run.paths.report_directory / "report.html"
    path.parent.mkdir(exist_ok=True)
    write_page(page, path)
    return path


def validation_curves(run: Run) -> list[Figure]:
    """Returns the curves of what was evaluated within phases: the task's first score, and those that tell the best."""
    lines = MetricsFollower(run.paths.evaluations_file).new_records()
    chosen = [phase.best.metric for phase in run.config.phases if phase.best is not None]
    figures = []
    for metric in dict.fromkeys([run.config.words.scores[0], *chosen]):
        points = [(line["tokens"], line["validation"][metric]) for line in lines if metric in line["validation"]]
        if points:
            name = metric.replace("_", " ")
            picture = curve(f"Validation, {name}", name, *zip(*points, strict=True))
            figures.append(Figure(picture, f"{name} of the validation split within the phases, and its running mean."))
    return figures


def learning_section(records: Sequence[dict[str, Any]], bits: str, validation: Sequence[Figure] = ()) -> Section:
    """Returns the curves of the loss and of the learning rate, from the records of metrics.jsonl.

    Args:
        records: one per step.
        bits: what the loss in bits is called, such as bits per token.
        validation: curves of held-out data, shown behind that of the loss.
    """
    some = _thinned(records)
    tokens = [record["tokens"] for record in some]
    losses = [record["loss"] / math.log(2) for record in some]
    rates = [record["learning_rate"] for record in some]
    return Section(
        "Learning",
        "",
        (
            Figure(curve("Training loss", bits, tokens, losses), f"Training loss as {bits}, and its running mean."),
            *validation,
            Figure(curve("Learning rate", "learning rate", tokens, rates), "Learning rate of every step."),
        ),
    )


def speed_section(records: Sequence[dict[str, Any]]) -> Section:
    """Returns the curves of throughput and of the share of the devices' peak that the model used."""
    some = _thinned(records)
    tokens = [record["tokens"] for record in some]
    speeds = [record["tokens_per_second"] for record in some]
    shares = [record["mfu"] for record in some]
    return Section(
        "Speed",
        "MFU is the share of the devices' measured peak speed that the model's own operations used.",
        (
            Figure(curve("Throughput", "tokens per second", tokens, speeds), "Tokens per second of all ranks."),
            Figure(curve("MFU", "share of the peak", tokens, shares), "Share of the devices' peak speed."),
        ),
    )


def evaluation_section(names: Sequence[str], evaluations: Sequence[dict[str, Any]]) -> Section:
    """Returns a table of every number that held-out data was scored by, phase by phase.

    Args:
        names: of the phases.
        evaluations: evaluation.json of each; what is a dictionary there is a split with its scores.
    """
    rows: dict[str, list[str]] = {}
    for index, evaluation in enumerate(evaluations):
        for split, scores in evaluation.items():
            for score, value in flattened(scores) if isinstance(scores, dict) else ():
                rows.setdefault(f"{split}: {score}", [""] * len(names))[index] = value
    table = Table(("score", *names), tuple((name, *values) for name, values in rows.items()))
    return Section("Evaluation", "Held-out data after each phase.", (table,))


def memory_section(names: Sequence[str], evaluations: Sequence[dict[str, Any]]) -> Section:
    """Returns a table of the memory that the phases took."""
    rows = tuple(
        (name, f"{evaluation['peak_memory_bytes'] / 2**20:,.0f}")
        for name, evaluation in zip(names, evaluations, strict=True)
    )
    text = "Peak of the rank that needed most; on a CPU that of the whole process."
    return Section("Memory", text, (Table(("phase", "MiB"), rows),))


def _thinned(records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return records[:: 1 + len(records) // MAX_POINTS]
