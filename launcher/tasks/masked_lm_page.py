"""The HTML report of a finished masked-LM run: lengths, guesses at hidden tokens, attention on held-out text."""

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.tokenizers.subword import TextTokenizer
from launcher.reporting.figures import attention_section, length_histogram
from launcher.reporting.html import Example, Figure, Section, Table
from launcher.reporting.run_report import write_html_report
from launcher.runs.run import Run
from launcher.tasks.characters.trained_model import newest_result
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.masked_lm_data import held_out_text
from longformer.costs.masked_lm import parameter_count
from longformer.inference.attention_maps import encoder_attention
from longformer.models import LongformerForMaskedLM
from longformer.models.common.token_loss import IGNORED

_SHOWN = 256
"""Tokens of the text that guesses and attention are shown on."""
_GUESSES = 20
"""Hidden tokens whose guesses are listed."""
_SHARDS = 20
"""Shards of each corpus whose documents the histogram counts."""


def write_masked_lm_page(config: MaskedLMRun, run: Run) -> Path:
    """Write report/report.html of a finished run, and return its path.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    directory = Path(run.paths.identity().data_directory)
    model = LongformerForMaskedLM.from_pretrained(newest_result(run) / "model").eval()
    text = held_out_text(config, directory, "test")
    length = min(_SHOWN, config.phases[-1].sequence_length, len(text.tokens))
    ids, labels = (torch.as_tensor(each[:length]) for each in (text.tokens, text.labels))
    corpora = {corpus.name: DocumentData.open(str(directory / corpus.name)) for corpus in config.data.sources}
    tokenizer = next(iter(corpora.values())).tokenizer()
    pieces = [tokenizer.decode([token]) for token in ids.tolist()]
    about = f"The first {length} tokens of the test text; a token sees {config.model.window // 2} on each side."
    sections = (
        _lengths(corpora),
        Section(
            "Hidden tokens", about, (Example((("text", "".join(pieces)),)), _guesses(model, ids, labels, tokenizer))
        ),
        attention_section(encoder_attention(model.longformer, ids, None), pieces, about=about),
    )
    return write_html_report(run, sections, parameters=parameter_count(model.config))


def _lengths(corpora: dict[str, DocumentData]) -> Section:
    splits = {name: data.split("train") for name, data in corpora.items()}
    lengths = {
        name: [int(tokens) for shard in islice(range(len(split.shards)), _SHARDS) for tokens in split.lengths(shard)]
        for name, split in splits.items()
    }
    about = f"Training documents, of each corpus those of the first {_SHARDS} shards; rows hold as many as fit."
    return Section("Documents", about, (Figure(length_histogram(lengths), "Tokens of the documents of each corpus."),))


@torch.no_grad()
def _guesses(model: LongformerForMaskedLM, ids: Tensor, labels: Tensor, tokenizer: TextTokenizer) -> Table:
    """Return what stood at the hidden places, and what the model holds for most probable there."""
    places = (labels != IGNORED).nonzero().flatten()[:_GUESSES]
    probabilities = model(ids[None]).logits[0, places].softmax(-1)
    rows = [
        (
            tokenizer.decode([hidden]),
            f"{row[hidden]:.3f}",
            tokenizer.decode([int(row.argmax())]),
            f"{row.max():.3f}",
        )
        for hidden, row in zip(labels[places].tolist(), probabilities, strict=True)
    ]
    return Table(("hidden", "its probability", "best guess", "its probability"), tuple(rows))
