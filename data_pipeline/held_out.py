"""Held-out documents with fixed masks: the same hidden tokens for every model, whatever rows it reads them in."""

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.masking import Masking
from data_pipeline.shards.document_dataset import DocumentSplit


def masked_documents(
    split: DocumentSplit, *, chosen: float, seed: int, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the documents of a split in their order, joined by the end token, with some tokens hidden.

    Which tokens are hidden depends on the seed, the number of the document in its split, and nothing else.

    Args:
        split: where no document may be damaged.
        chosen: share of the tokens that are hidden, as in `Masking`.
        seed: of the masks.
        limit: stop after so many tokens; None: read all documents.

    Returns:
        What a model sees and the labels (IGNORED where nothing is hidden), both (length,) int64.

    Raises:
        DataError: a document is damaged.
    """
    masking = Masking(split.tokenizer, seed=seed, chosen=chosen)
    seen: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    length, number = 0, 0
    for shard in range(len(split.shards)):
        for document, tokens in enumerate(split.lengths(shard)):
            if limit is not None and length >= limit:
                break
            text = split.read(shard, document, 0, int(tokens))
            if text is None:
                raise DataError(f"{split.name}: a held-out document is damaged; prepare the data again")
            joined = np.append(text.astype(np.int64), split.tokenizer.special.end)
            for pieces, piece in zip((seen, labels), masking(joined, number), strict=True):
                pieces.append(piece)
            length += len(joined)
            number += 1
    return np.concatenate(seen)[:limit], np.concatenate(labels)[:limit]
