"""The HTML report of a finished summarization run: lengths, ROUGE by length, examples, attention on a test document."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.summary_samples import read_samples
from launcher.reporting.figures import attention_section, length_histogram, scores_by_length
from launcher.reporting.html import Example, Figure, Section
from launcher.reporting.run_report import write_html_report
from launcher.runs.run import Run
from launcher.tasks.characters.trained_model import newest_result
from launcher.tasks.summarization.config import SummarizationRun
from launcher.tasks.summarization.phase import table_name
from launcher.tasks.summarization_data import held_out
from longformer.costs.led import parameter_count
from longformer.inference.attention_maps import encoder_attention
from longformer.models import LEDForConditionalGeneration

_SHOWN = 256
"""Tokens of the document that attention is shown on."""
_MEASURED = 1_000
"""Training documents whose lengths are counted."""
_EXAMPLES = 3
_CHARACTERS = 2_000
"""Of each example's document."""


def write_summarization_page(config: SummarizationRun, run: Run) -> Path:
    """Write report/report.html of a finished run, and return its path.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    directory, result = Path(run.paths.identity().data_directory), newest_result(run)
    model = LEDForConditionalGeneration.from_pretrained(result / "model").eval()
    written = (result / table_name("test")).read_text(encoding="utf-8").splitlines()
    table = [json.loads(line) for line in written]
    data = DocumentData.open(str(directory))
    sections = (_lengths(data), _scores(table), _examples(table), _attention(config, model, data, directory))
    return write_html_report(run, sections, parameters=parameter_count(model.config))


def _lengths(data: DocumentData) -> Section:
    samples = list(islice(read_samples(data.split("train")), _MEASURED))
    lengths = {
        "documents": [len(sample.document) for sample in samples],
        "summaries": [len(summary) for sample in samples for summary in sample.summaries],
    }
    figure = Figure(length_histogram(lengths), "Tokens of documents and of their summaries.")
    return Section("Documents", f"The first {len(samples):,} documents to learn from.", (figure,))


def _scores(table: Sequence[dict[str, Any]]) -> Section:
    lengths = [line["tokens"] for line in table]
    scores = {
        "ROUGE-1": [line["scores"]["rouge1"] for line in table],
        "ROUGE-2": [line["scores"]["rouge2"] for line in table],
        "ROUGE-1 of the lead": [line["lead"]["rouge1"] for line in table],
    }
    about = "Test documents in groups of equal number; the encoder reads the beginning of the longest only."
    figure = Figure(scores_by_length(lengths, scores), "Mean scores, with standard errors, by length of the document.")
    return Section("Does reading more help?", about, (figure,))


def _examples(table: Sequence[dict[str, Any]]) -> Section:
    examples = tuple(
        Example(
            (
                ("document", line["document"][:_CHARACTERS]),
                ("reference", line["references"][0]),
                (f"prediction, ROUGE-1 {line['scores']['rouge1']:.3f}", line["prediction"]),
            )
        )
        for line in table[:_EXAMPLES]
    )
    return Section("Examples", f"The first test documents, cut after {_CHARACTERS:,} characters.", examples)


def _attention(
    config: SummarizationRun, model: LEDForConditionalGeneration, data: DocumentData, directory: Path
) -> Section:
    (document,) = held_out(directory, "test", source_length=_SHOWN, limit=1)
    is_global = (torch.arange(len(document.input_ids)) < document.global_tokens).long()
    decode = data.tokenizer().decode
    return attention_section(
        encoder_attention(model.get_encoder(), document.input_ids, is_global),
        [decode([token]) for token in document.input_ids.tolist()],
        about=f"The first {len(is_global)} tokens of a test document; a token of the encoder sees "
        f"{config.model.window // 2} on each side, and the first {document.global_tokens} are global.",
    )
