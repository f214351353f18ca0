"""What the report of a finished summarization run adds: lengths, ROUGE by length, examples, attention."""

from collections.abc import Sequence
from typing import Any

import torch

from launcher.reporting.figures import attention_section, length_histogram, scores_by_length
from launcher.reporting.html import Example, Figure, Section
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.summarization.config import SummarizationRun
from launcher.tasks.summarization.data import SummarizationData
from longformer.inference.attention_maps import encoder_attention
from longformer.models import LEDForConditionalGeneration

_SHOWN = 256
"""Tokens of the document that attention is shown on."""
_MEASURED = 1_000
"""Training documents whose lengths are counted."""
_EXAMPLES = 3
_CHARACTERS = 2_000
"""Of each example's document."""


def report_of(config: SummarizationRun, data: SummarizationData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    result = run.newest_result()
    model = LEDForConditionalGeneration.from_pretrained(result / "model")
    table = run.test_table("summaries")
    test = run.evaluations()[-1]["test"]
    extracts = " and ".join(
        f"{test[name]['rouge1']:.3f} / {test[name]['rouge2']:.3f} / {test[name]['rougeLsum']:.3f} for the {about}"
        for name, about in (("lead", "beginning of each document"), ("oracle", "best extract"))
    )
    notes = [f"For orientation, ROUGE-1 / ROUGE-2 / ROUGE-Lsum of the same test documents: {extracts}."]
    if "tokenizer" in test:  # runs of earlier versions do not say
        notes.append(
            f"Words are those of the tokenizer {test['tokenizer']}; the references' language: {test['language']}."
        )
    sections = (_lengths(data), _scores(table), _examples(table), _attention(config, data, model))
    return TaskReport(sections=sections, notes=tuple(notes))


def _lengths(data: SummarizationData) -> Section:
    lengths = data.training_lengths(_MEASURED)
    figure = Figure(length_histogram(lengths), "Tokens of documents and of their summaries.")
    return Section("Documents", f"The first {len(lengths['documents']):,} documents to learn from.", (figure,))


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


def _attention(config: SummarizationRun, data: SummarizationData, model: LEDForConditionalGeneration) -> Section:
    (document,) = data.held_out("test", source_length=min(_SHOWN, config.phases[-1].sequence_length), limit=1)
    ids = document.input_ids
    is_global = (torch.arange(len(ids)) < document.global_tokens).long()
    return attention_section(
        encoder_attention(model.get_encoder(), ids, is_global),
        data.tokenizer().pieces(ids.tolist()),
        about=f"The first {len(ids)} tokens of a test document; a token of the encoder sees "
        f"{model.config.attention_window[0] // 2} on each side, and the first {document.global_tokens} are global.",
    )
