"""What the HTML report of a character run says beyond what all runs say: continued texts, and attention."""

import json
from pathlib import Path

import torch

from data_pipeline.shards.stream_dataset import PreparedData
from launcher.reporting.figures import attention_section
from launcher.reporting.html import Example, Section
from launcher.reporting.run_report import write_html_report
from launcher.runs.run import Run
from launcher.tasks.characters.trained_model import TrainedModel, newest_result
from longformer.costs.char_lm import parameter_count
from longformer.inference.attention_maps import character_attention

_SHOWN = 256
"""Characters of the text that attention is shown on."""


def write_character_page(run: Run) -> Path:
    """Write report/report.html of a finished character run whose examples are written, and return its path.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    trained = TrainedModel.load(newest_result(run) / "model")
    stream = PreparedData.open(Path(run.paths.identity().data_directory)).split("test")
    text = torch.from_numpy(stream.read(0, min(len(stream), _SHOWN))).long()
    sections = (_examples(run), _attention(trained, text))
    return write_html_report(run, sections, parameters=parameter_count(trained.model.config))


def _examples(run: Run) -> Section:
    """Return what `write_examples` has written."""
    table = json.loads((run.paths.report_directory / "tables" / "examples.json").read_text(encoding="utf-8"))
    shown = [
        Example(tuple((name, _written(cell)) for name, cell in zip(table["columns"], row, strict=True)))
        for row in table["data"]
    ]
    return Section("Examples", "Places spread over the test text.", tuple(shown))


def _written(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.3f}"


def _attention(trained: TrainedModel, text: torch.Tensor) -> Section:
    config = trained.model.config
    dilations = sorted(set(config.dilations))
    about = (
        f"The first {len(text)} characters of the test text. Every position sees itself and at most "
        f"{min(config.windows)} (narrowest layer) to {max(config.windows)} (widest) earlier ones; dilations "
        f"{', '.join(map(str, dilations))}."
    )
    pieces = [_decoded(trained, [token]) for token in text.tolist()]
    return attention_section(character_attention(trained.model, text), pieces, about=about)


def _decoded(trained: TrainedModel, tokens: list[int]) -> str:
    return trained.vocabulary.decode_bytes(tokens).decode(errors="replace")
