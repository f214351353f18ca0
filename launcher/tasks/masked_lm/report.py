"""The report of a finished masked-LM run: what each phase cost and brought. report/{summary.json, summary.md}."""

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.reporting.text import clock, markdown_table, short
from launcher.runs.run import Run
from longformer.files import write_atomically, write_json

_HEADINGS = ("phase", "length", "steps", "tokens", "tokens/s", "time", "bits per masked token")


def write_and_show_report(run: Run) -> None:
    """Write the report of a run whose phases are all done, from what lies in its directory, and print it."""
    config = run.config
    evaluations = [json.loads((result / "evaluation.json").read_text()) for result in run.finished_results()]
    phases = [
        {"name": phase.name, "sequence_length": phase.sequence_length, **evaluation}
        for phase, evaluation in zip(config.phases, evaluations, strict=True)
    ]
    run.paths.report_directory.mkdir(exist_ok=True)
    write_json(run.paths.report_directory / "summary.json", {"name": config.name, "phases": phases})
    verdict = (
        f"On the test split: {phases[-1]['test']['bits_per_masked_token']:.3f} bits per masked token. "
        f"`longformer evaluate {run.paths.root}` sets them beside the source and the model before training."
    )
    content = f"# {config.name}\n\n{markdown_table(_HEADINGS, map(_cells, phases))}\n\n{verdict}\n"
    write_atomically(run.paths.report_directory / "summary.md", content.encode())
    table = Table(*_HEADINGS, title=config.name, title_justify="left", box=box.SIMPLE)
    for phase in phases:
        table.add_row(*_cells(phase))
    console = Console()
    console.print(table)
    console.print(verdict, highlight=False)


def _cells(phase: dict[str, Any]) -> tuple[str, ...]:
    return (
        phase["name"],
        f"{phase['sequence_length']:,}",
        f"{phase['steps']:,}",
        short(phase["tokens"]),
        f"{phase['tokens'] / phase['seconds']:,.0f}",
        clock(phase["seconds"]),
        f"{phase['validation']['bits_per_masked_token']:.3f}",
    )
