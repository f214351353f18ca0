"""The HTML report of a run of any task: what every run has, and the sections that its task adds."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.reporting.figures import curve
from launcher.reporting.html import Figure, Page, Section, Table, write_page
from launcher.reporting.text import clock, short
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run

MOST_POINTS = 4000
"""Steps that a curve is drawn through; of a longer run every so many-th."""


def write_html_report(run: Run, sections: Sequence[Section], *, parameters: int) -> Path:
    """Write report/report.html of a run whose phases are all done, and return its path; MLflow gets it with the report.

    Args:
        run: its directory.
        sections: what the task has to say, shown after the curves.
        parameters: number of the model's weights.

    Raises:
        LongformerError: the run directory is damaged.
    """
    config, identity = run.config, run.paths.identity()
    records = MetricsFollower(run.paths.metrics_file).new_records()
    evaluations = [
        json.loads((run.result_directory(index) / "evaluation.json").read_text(encoding="utf-8"))
        for index in range(len(config.phases))
    ]
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
            learning_section(records, config.words.bits.replace("_", " ")),
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


def learning_section(records: Sequence[dict[str, Any]], bits: str) -> Section:
    """Return the curves of the loss and of the learning rate, from the records of metrics.jsonl.

    Args:
        records: one per step.
        bits: what the loss in bits is called, such as bits per character.
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
            Figure(curve("Learning rate", "learning rate", tokens, rates), "Learning rate of every step."),
        ),
    )


def speed_section(records: Sequence[dict[str, Any]]) -> Section:
    """Return the curves of throughput and of the share of the devices' peak that the model used."""
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
    """Return a table of every number that held-out data was judged by, phase by phase.

    Args:
        names: of the phases.
        evaluations: evaluation.json of each; what is a dictionary there is a split with its scores.
    """
    rows: dict[str, list[str]] = {}
    for index, evaluation in enumerate(evaluations):
        for split, scores in evaluation.items():
            for score, value in scores.items() if isinstance(scores, dict) else ():
                if isinstance(value, int | float):
                    row = rows.setdefault(f"{split}: {score.replace('_', ' ')}", [""] * len(names))
                    row[index] = f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
    table = Table(("score", *names), tuple((name, *values) for name, values in rows.items()))
    return Section("Evaluation", "Held-out data after each phase.", (table,))


def memory_section(names: Sequence[str], evaluations: Sequence[dict[str, Any]]) -> Section:
    """Return a table of the memory that the phases took."""
    rows = tuple(
        (name, f"{evaluation['peak_memory_bytes'] / 2**20:,.0f}")
        for name, evaluation in zip(names, evaluations, strict=True)
    )
    text = "Peak of the rank that needed most; on a CPU that of the whole process."
    return Section("Memory", text, (Table(("phase", "MiB"), rows),))


def _thinned(records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return records[:: 1 + len(records) // MOST_POINTS]
