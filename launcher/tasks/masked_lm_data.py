"""The prepared documents of a masked-LM run: training rows of the mix, and held-out text with fixed masks."""

from pathlib import Path

import numpy as np

from data_pipeline.held_out import masked_documents
from data_pipeline.sampling.sequences import MixedRows, PackedRows, Rows
from data_pipeline.shards.document_dataset import DocumentData
from launcher.tasks.masked_lm.config import MaskedLMRun
from longformer.evaluation.bits import MaskedText

HELD_OUT_SEED = 0
"""Of the masks of held-out text: the same for all runs, so that their scores compare."""


def training_rows(config: MaskedLMRun, index: int, directory: Path) -> Rows:
    """Return the endless rows of a phase: all documents of a corpus packed, the corpora mixed by weight.

    Raises:
        DataError: prepared documents are missing or damaged.
    """
    # Phases of equal length would otherwise see the same rows in the same order.
    seed = config.seed + index
    length = config.phases[index].sequence_length
    weighted: list[tuple[Rows, float]] = [
        (PackedRows(_open(directory, corpus.name).split("train"), sequence_length=length, seed=seed), corpus.weight)
        for corpus in config.data.sources
    ]
    return weighted[0][0] if len(weighted) == 1 else MixedRows(weighted, seed=seed)


def held_out_text(config: MaskedLMRun, directory: Path, split: str) -> MaskedText:
    """Return a split's documents, of each corpus its share of `evaluation.limit_tokens`.

    Raises:
        DataError: prepared documents are missing or damaged.
    """
    total = sum(corpus.weight for corpus in config.data.sources)
    limit = config.evaluation.limit_tokens
    pieces = [
        masked_documents(
            _open(directory, corpus.name).split(split),
            chosen=config.data.masked,
            seed=HELD_OUT_SEED,
            limit=None if limit is None else max(1, round(limit * corpus.weight / total)),
        )
        for corpus in config.data.sources
    ]
    tokens, labels = (np.concatenate(each) for each in zip(*pieces, strict=True))
    special = _open(directory, config.data.sources[0].name).manifest.tokenizer.special
    return MaskedText(tokens, labels, begin=special.begin, end=special.end, padding=special.padding)


def _open(directory: Path, corpus: str) -> DocumentData:
    return DocumentData.open(str(directory / corpus))
