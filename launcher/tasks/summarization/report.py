"""What a summarization run brought: ROUGE after every phase beside the extracts, and the tables of what was written.

report/{summary.json, summary.md, tables/summaries-validation.json, tables/summaries-test.json}
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from launcher.reporting.text import markdown_table
from launcher.runs.run import Run
from launcher.tasks.base import Judgement, JudgementRequest
from launcher.tasks.characters.trained_model import newest_result
from launcher.tasks.summarization.config import SummarizationRun
from launcher.tasks.summarization.phase import table_name
from launcher.tasks.summarization_data import held_out, written_text
from longformer.evaluation.rouge import METRICS
from longformer.evaluation.summaries import judge_summaries, summary_of, write_table
from longformer.files import write_atomically, write_json
from longformer.models import LEDForConditionalGeneration

_HEADINGS = ("text", "split", "documents", *METRICS, *(f"{metric}, stemmed" for metric in METRICS))


def write_and_show_report(config: SummarizationRun, run: Run) -> None:
    """Write the report of a run whose phases are all done, and print its table."""
    rows: list[tuple[str, ...]] = []
    summary: dict[str, Any] = {}
    for index, phase in enumerate(config.phases):
        result = run.result_directory(index)
        summary[phase.name] = json.loads((result / "evaluation.json").read_text(encoding="utf-8"))
        rows += _rows(f"phase {phase.name}", summary[phase.name])
    rows += [row for name in ("lead", "oracle") for row in _rows(name, summary[config.phases[-1].name], of=name)]
    report = run.paths.report_directory
    report.mkdir(exist_ok=True)
    tables = report / "tables"
    tables.mkdir(exist_ok=True)
    for split in ("validation", "test"):
        write_json(tables / f"summaries-{split}.json", _as_mlflow_shows_it(result / table_name(split)))
    write_json(report / "summary.json", summary)
    write_atomically(report / "summary.md", f"# {config.name}\n\n{markdown_table(_HEADINGS, rows)}\n".encode())
    Console().print(_table(config.name, rows))


def _as_mlflow_shows_it(table: Path) -> dict[str, list[Any]]:
    """Return the lines of a table of `write_table` as columns and rows."""
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    columns = ["identifier", "query", "tokens", "document", "references", "prediction"]
    rows = [[*(line[name] for name in columns), *line["scores"].values()] for line in lines]
    return {"columns": [*columns, *lines[0]["scores"]], "data": rows}


def _rows(text: str, evaluation: dict[str, Any], *, of: str | None = None) -> list[tuple[str, ...]]:
    """Return a row for every split that was judged: of the model, or of the extract that is named."""
    found = []
    for split in ("validation", "test"):
        if split in evaluation:
            scores = evaluation[split] if of is None else evaluation[split][of]
            figures = (f"{scores[metric + ending]:.4f}" for ending in ("", "_stemmed") for metric in METRICS)
            found.append((text, split, str(evaluation[split]["documents"]), *figures))
    return found


def _table(title: str, rows: list[tuple[str, ...]]) -> Table:
    table = Table(*_HEADINGS[:7], title=title, title_justify="left")
    for row in rows:
        table.add_row(*row[:7])
    return table


def judge(config: SummarizationRun, run: Run, request: JudgementRequest) -> Judgement:
    """Let the newest finished phase's model write about a split, and keep the table in the run directory.

    Raises:
        LongformerError: no phase is done.
        DataError: the prepared summaries are missing or damaged.
    """
    directory, result = Path(run.paths.identity().data_directory), newest_result(run)
    model = LEDForConditionalGeneration.from_pretrained(result / "model")
    documents = held_out(
        directory,
        request.split,
        source_length=request.sequence_length or config.model.max_length,
        limit=config.evaluation.limit_documents,
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"writing about {len(documents):,} documents", total=None)
        table = judge_summaries(
            model,
            documents,
            written_text(directory),
            settings=config.evaluation.generation,
            batch_size=request.batch_size or config.evaluation.batch_size,
            report_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    written = run.paths.root / table_name(request.split)
    write_table(written, table)
    values = {"split": request.split, "model": str(result / "model"), "table": str(written), **summary_of(table)}
    rows = _rows("model", {request.split: values})
    rows += [row for name in ("lead", "oracle") for row in _rows(name, {request.split: values}, of=name)]
    return Judgement(_table(f"{config.name}: {written}", rows), values)
