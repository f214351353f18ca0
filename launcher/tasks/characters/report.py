"""The report of a finished character run: what each phase cost and brought, and how well the model does on unseen text.

Everything comes from the run directory and the prepared data; writing it again gives the same report.
report/{summary.json, summary.md, bits_per_character.png, cost.png}, each written atomically.
"""

import json
import lzma
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from data_pipeline.shards.stream_dataset import PreparedData
from launcher.reporting.text import clock, markdown_table, short
from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.tasks.characters.config import CharacterRun
from launcher.tasks.characters.plots import bits_per_character_plot, cost_plot
from launcher.tasks.characters.summary import PhaseSummary, Summary, TestScore
from longformer.costs.char_lm import parameter_count
from longformer.files import write_atomically, write_json


def write_report(run: Run) -> Summary:
    """Write the report of a run whose phases are all done, and return its numbers.

    Raises:
        LongformerError, DataError: the run directory or the prepared data is missing or damaged.
    """
    config = run.config
    assert isinstance(config, CharacterRun), "other tasks have reports of their own"
    identity = run.paths.identity()
    data = PreparedData.open(Path(identity.data_directory))
    evaluations = [
        json.loads((run.result_directory(index) / "evaluation.json").read_text(encoding="utf-8"))
        for index in range(len(config.phases))
    ]
    records = MetricsFollower(run.paths.metrics_file).new_records()
    summary = Summary(
        name=config.name,
        parameters=parameter_count(config.character_model(0, len(data.vocabulary))),
        ranks=identity.ranks,
        phases=tuple(_phase_summary(config, index, evaluation) for index, evaluation in enumerate(evaluations)),
        saving_seconds=sum(record["saving_seconds"] for record in records),
        test=TestScore(**evaluations[-1]["test"], xz_bits_per_character=_xz_bits_per_character(data)),
    )
    report = run.paths.report_directory
    report.mkdir(exist_ok=True)
    write_atomically(report / "bits_per_character.png", bits_per_character_plot(records, summary))
    write_atomically(report / "cost.png", cost_plot(config, len(data.vocabulary), summary))
    write_atomically(report / "summary.md", _markdown(summary).encode())
    write_json(report / "summary.json", asdict(summary))
    return summary


def show_report(summary: Summary, console: Console | None = None) -> None:
    """Print the table of phases and the test score."""
    console = console or Console()
    title = f"{summary.name}: {summary.parameters:,} parameters, {summary.ranks} ranks"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for index, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for phase in summary.phases:
        table.add_row(*_cells(phase))
    console.print(table)
    console.print(_verdict(summary), highlight=False)


_HEADINGS = ("phase", "length", "windows", "steps", "tokens", "tokens/s", "time", "BPC")


def _cells(phase: PhaseSummary) -> tuple[str, ...]:
    return (
        phase.name,
        f"{phase.sequence_length:,}",
        f"{min(phase.windows):,}-{max(phase.windows):,}",
        f"{phase.steps:,}",
        short(phase.tokens),
        f"{phase.tokens_per_second:,.0f}",
        clock(phase.seconds),
        f"{phase.validation_bits_per_character:.3f}",
    )


def _verdict(summary: Summary) -> str:
    test = summary.test
    return (
        f"Test: {test.bits_per_character:.3f} bits per character over {test.scored:,} characters "
        f"(sequences of {test.sequence_length:,}, step {test.stride:,}; "
        f"{test.scored_without_full_context:,} at the beginning with less context). "
        f"For orientation, xz -9e needs {test.xz_bits_per_character:.3f} bits per character for the same text. "
        f"Checkpoints took {summary.saving_seconds:.1f} s from training."
    )


def _markdown(summary: Summary) -> str:
    table = markdown_table(_HEADINGS, map(_cells, summary.phases))
    return (
        f"# {summary.name}\n\n{summary.parameters:,} parameters, {summary.ranks} ranks. "
        f"BPC is bits per character on the validation split after the phase.\n\n{table}\n\n{_verdict(summary)}\n"
    )


def _phase_summary(config: CharacterRun, index: int, evaluation: dict) -> PhaseSummary:
    phase = config.phases[index]
    return PhaseSummary(
        name=phase.name,
        sequence_length=phase.sequence_length,
        windows=phase.windows,
        steps=evaluation["steps"],
        tokens=evaluation["tokens"],
        seconds=evaluation["seconds"],
        tokens_per_second=evaluation["tokens"] / evaluation["seconds"],
        peak_memory_bytes=evaluation["peak_memory_bytes"],
        validation_bits_per_character=evaluation["validation"]["bits_per_character"],
    )


def _xz_bits_per_character(data: PreparedData) -> float:
    """Return what `xz -9e` makes of the test split, in bits per character (our characters are bytes)."""
    stream = data.split("test")
    text = data.vocabulary.decode_bytes(stream.read(0, len(stream)))
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
