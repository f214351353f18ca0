"""The prepared summaries of a run: rows to learn from, and held-out documents to write about."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from data_pipeline.sampling.summaries import SummaryRows
from data_pipeline.shards.document_dataset import DocumentData
from data_pipeline.summary_samples import read_samples, source_tokens
from launcher.tasks.summarization.config import SummarizationRun
from longformer.evaluation.summaries import HeldOut


def training_rows(config: SummarizationRun, index: int, directory: Path) -> SummaryRows:
    """Return the endless rows of a phase.

    Raises:
        DataError: prepared summaries are missing or damaged.
    """
    return SummaryRows(
        DocumentData.open(str(directory)).split("train"),
        source_length=config.phases[index].sequence_length,
        target_length=config.data.target_length,
        begin_is_learned=config.model.decoder_starts_with == "end",
        # Phases would otherwise see the same documents in the same order.
        seed=config.seed + index,
    )


def held_out(directory: Path, split: str, *, source_length: int, limit: int | None) -> list[HeldOut]:
    """Return the first `limit` documents of a split, or all, of which an encoder reads `source_length` tokens.

    Raises:
        DataError: prepared summaries are missing or damaged.
    """
    data = DocumentData.open(str(directory))
    special, decode = data.manifest.tokenizer.special, data.tokenizer().decode
    found = []
    for sample in islice(read_samples(data.split(split)), limit):
        tokens, global_tokens = source_tokens(sample, special, length=source_length)
        found.append(
            HeldOut(
                identifier=decode(sample.identifier),
                query=decode(sample.query),
                document=decode(sample.document),
                references=tuple(map(decode, sample.summaries)),
                input_ids=torch.from_numpy(tokens),
                global_tokens=global_tokens,
                tokens=len(sample.document),
            )
        )
    return found


def written_text(directory: Path) -> Callable[[list[int]], str]:
    """Return what turns the tokens that a model has written into text."""
    data = DocumentData.open(str(directory))
    tokenizer, special = data.tokenizer(), set(data.manifest.tokenizer.special.all)
    return lambda tokens: tokenizer.decode(token for token in tokens if token not in special)
