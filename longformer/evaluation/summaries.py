"""How well a model summarizes: what it writes about held-out documents, against what people wrote, and beside extracts.

Which documents are written about together does not depend on the number of ranks, so neither does any text or score.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from longformer.evaluation.rouge import METRICS, STEMMED, by_length, lead, mean_with_interval, oracle, rouge
from longformer.evaluation.words import TextUnits
from longformer.files import write_atomically
from longformer.models.led.generate import GeneratesText

ALL_METRICS = tuple(metric + ending for ending in ("", STEMMED) for metric in METRICS)


@dataclass(frozen=True)
class HeldOutDocument:
    """A document that the model has not learned from."""

    identifier: str
    query: str
    """What is asked of the document; empty = nothing in particular."""
    document: str
    references: tuple[str, ...]
    """What people wrote about it."""
    input_ids: Tensor
    """(positions,) long: what the encoder reads."""
    global_tokens: int
    """So many tokens at the beginning attend globally."""
    tokens: int
    """Of the whole document, also where the encoder reads less."""


@dataclass(frozen=True)
class ScoredSummary:
    """One line of the table: a document, what was written about it, and how good that is."""

    identifier: str
    query: str
    tokens: int
    document: str
    references: tuple[str, ...]
    prediction: str
    scores: dict[str, float]
    """F by metric, of the prediction."""
    lead: dict[str, float]
    """Of the document's beginning, as long as the references are on average."""
    oracle: dict[str, float]
    """Of the best extract that a greedy search finds."""


def evaluate_summaries(
    model: GeneratesText,
    documents: Sequence[HeldOutDocument],
    decode: Callable[[list[int]], str],
    *,
    settings: Mapping[str, Any],
    batch_size: int,
    units: TextUnits,
    rank: int = 0,
    world_size: int = 1,
    report_progress: Callable[[int, int], None] | None = None,
) -> list[ScoredSummary]:
    """Lets a model write about every document and scores what it writes.

    Args:
        model: the same, whole, on every rank; put into evaluation mode for the time being.
        documents: the same on every rank.
        decode: turns token ids into text without special tokens.
        settings: of `GeneratesText.generate`.
        batch_size: documents that are written about together; those of similar length are.
        units: how texts are taken apart to be scored.
        rank, world_size: share the work through torch.distributed. Every rank returns all documents.
        report_progress: called with (rounds done, rounds in all); every rank makes the same number of rounds.

    Returns:
        One line per document, in the order of `documents`.

    Raises:
        ValueError: there are no documents, or a setting is refused by `generate`.
    """
    if not documents:
        raise ValueError("there are no documents to write about")
    words = lead_words(documents, units)
    order = sorted(range(len(documents)), key=lambda number: (len(documents[number].input_ids), number))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rounds = math.ceil(len(batches) / world_size)
    mine: dict[int, ScoredSummary] = {}
    was_training = model.training
    model.eval()
    try:
        for done in range(rounds):
            for batch in batches[done * world_size + rank : done * world_size + rank + 1]:
                chosen = [documents[number] for number in batch]
                texts = write_about(model, chosen, decode, settings)
                for number, document, text in zip(batch, chosen, texts, strict=True):
                    mine[number] = scored_summary(document, text, words, units)
            if report_progress:
                report_progress(done + 1, rounds)
    finally:
        model.train(was_training)
    return _of_all_ranks(mine, world_size)


def lead_words(documents: Sequence[HeldOutDocument], units: TextUnits) -> int:
    """Returns how many words the lead has: as many as the references have on average."""
    lengths = [len(units.words(reference)) for document in documents for reference in document.references]
    return round(sum(lengths) / len(lengths))


@torch.no_grad()
def write_about(
    model: GeneratesText,
    documents: Sequence[HeldOutDocument],
    decode: Callable[[list[int]], str],
    settings: Mapping[str, Any],
) -> list[str]:
    """Returns what the model writes about documents that it reads together, padded to the longest."""
    device = next(model.parameters()).device
    longest = max(len(document.input_ids) for document in documents)
    shape = (len(documents), longest)
    input_ids = torch.full(shape, model.config.pad_token_id, device=device)
    attention_mask, global_attention_mask = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, document in enumerate(documents):
        input_ids[row, : len(document.input_ids)] = document.input_ids.to(device)
        attention_mask[row, : len(document.input_ids)] = 1
        global_attention_mask[row, : document.global_tokens] = 1
    written = model.generate(input_ids, attention_mask, global_attention_mask, **settings)
    return [decode(tokens).strip() for tokens in written.tolist()]


def scored_summary(document: HeldOutDocument, prediction: str, words: int, units: TextUnits) -> ScoredSummary:
    """Returns the line of one document; its lead has so many `words`."""
    return ScoredSummary(
        identifier=document.identifier,
        query=document.query,
        tokens=document.tokens,
        document=document.document,
        references=document.references,
        prediction=prediction,
        scores=rouge(prediction, document.references, units),
        lead=rouge(lead(document.document, words=words, units=units), document.references, units),
        oracle=rouge(oracle(document.document, document.references, units), document.references, units),
    )


def _of_all_ranks(mine: dict[int, ScoredSummary], world_size: int) -> list[ScoredSummary]:
    found = [mine]
    if world_size > 1:
        found = [{} for _ in range(world_size)]
        torch.distributed.all_gather_object(found, mine)
    together = {number: line for each in found for number, line in each.items()}
    return [together[number] for number in sorted(together)]


def summary_of(table: Sequence[ScoredSummary], units: TextUnits) -> dict[str, Any]:
    """Returns what the table says as a whole, ready for JSON.

    It holds, for each metric, the model's mean; `intervals` of these means; the means of both extracts; and the model's
    rouge1 by the length of the documents, and how texts were taken apart.
    """
    means = {metric: mean_with_interval([line.scores[metric] for line in table]) for metric in ALL_METRICS}
    lengths = by_length([line.tokens for line in table], [line.scores["rouge1"] for line in table])
    return {
        **{metric: found.mean for metric, found in means.items()},
        "documents": len(table),
        "tokenizer": units.tokenizer,
        "language": units.language,
        "intervals": {metric: [found.low, found.high] for metric, found in means.items()},
        "lead": {metric: _mean(line.lead[metric] for line in table) for metric in ALL_METRICS},
        "oracle": {metric: _mean(line.oracle[metric] for line in table) for metric in ALL_METRICS},
        "rouge1_by_tokens": {name: {"documents": count, "mean": mean} for name, (count, mean) in lengths.items()},
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def write_table(path: Path, table: Sequence[ScoredSummary]) -> None:
    """Writes the table as JSON lines, atomically."""
    write_atomically(path, "".join(json.dumps(asdict(line)) + "\n" for line in table).encode())
