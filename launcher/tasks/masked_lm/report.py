"""What the report of a finished masked-LM run adds: lengths, guesses at hidden tokens, attention on held-out text."""

from collections.abc import Callable

import torch
from torch import Tensor

from launcher.reporting.figures import attention_section, length_histogram
from launcher.reporting.html import Example, Figure, Section, Table
from launcher.runs.run import Run
from launcher.tasks.base import TaskReport
from launcher.tasks.masked_lm.config import MaskedLMRun
from launcher.tasks.masked_lm.data import MaskedLMData
from longformer.inference.attention_maps import encoder_attention
from longformer.models import LongformerForMaskedLM
from longformer.models.common.token_loss import IGNORED

_SHOWN = 256
"""Tokens of the text that guesses and attention are shown on."""
_GUESSES = 20
"""Hidden tokens whose guesses are listed."""
_SHARDS = 20
"""Shards of each corpus whose documents the histogram counts."""


def report_of(config: MaskedLMRun, data: MaskedLMData, run: Run) -> TaskReport:
    """Returns what the report adds.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    model = LongformerForMaskedLM.from_pretrained(run.newest_result() / "model")
    tokens, hidden = data.held_out("test")
    length = min(_SHOWN, config.phases[-1].sequence_length - 2, len(tokens))
    special, tokenizer = data.special_tokens, data.tokenizer()
    # A row as in evaluation, and as a text is read by itself.
    ids = torch.tensor([special.begin, *tokens[:length], special.end])
    labels = torch.tensor([IGNORED, *hidden[:length], IGNORED])
    pieces = tokenizer.pieces(ids.tolist())
    side = model.config.attention_window[0] // 2
    about = f"The first {length} tokens of the test text; a token sees {side} on each side."
    guesses = (Example((("text", "".join(pieces)),)), _guesses(model, ids, labels, tokenizer.decode))
    return TaskReport(
        sections=(
            _lengths(data),
            Section("Hidden tokens", about, guesses),
            attention_section(encoder_attention(model.longformer, ids, None), pieces, about=about),
        ),
        notes=(f"`longformer evaluate {run.paths.in_shell}` sets it beside the source and the model before training.",),
    )


def _lengths(data: MaskedLMData) -> Section:
    lengths = data.document_lengths(shards=_SHARDS)
    about = f"Training documents, of each corpus those of the first {_SHARDS} shards; rows hold as many as fit."
    return Section("Documents", about, (Figure(length_histogram(lengths), "Tokens of the documents of each corpus."),))


@torch.no_grad()
def _guesses(model: LongformerForMaskedLM, ids: Tensor, labels: Tensor, decode: Callable[[list[int]], str]) -> Table:
    """Returns what stood at the hidden positions, and what the model holds for most probable there."""
    positions = (labels != IGNORED).nonzero().flatten()[:_GUESSES]
    probabilities = model(ids[None]).logits[0, positions].softmax(-1)
    rows = [
        (
            decode([hidden]),
            f"{row[hidden]:.3f}",
            decode([int(row.argmax())]),
            f"{row.max():.3f}",
        )
        for hidden, row in zip(labels[positions].tolist(), probabilities, strict=True)
    ]
    return Table(("hidden", "its probability", "best guess", "its probability"), tuple(rows))
