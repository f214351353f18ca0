"""Dynamic masking for masked language models: which tokens are hidden is a function of the sample and nothing else."""

import hashlib
from collections.abc import Mapping

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequence, Sequences
from data_pipeline.sampling.order import mixed_array
from data_pipeline.shards.prepared import Split
from data_pipeline.sources.corpora import TEXT
from data_pipeline.tokenizers.tokenizer import TokenizerRecord

IGNORED = -100
"""The label of a token that is not to be predicted."""


class Masking:
    """BERT's masking (Devlin et al. 2019, 3.1; semantics.md 4): every token that is not special is chosen with
    probability `chosen`; of the chosen, 80 percent become the mask token, 10 percent a random ordinary token, and 10
    percent stay.

    The draws depend on the seed and the position of the sequence in the endless order, so they differ from epoch to
    epoch and are the same on every rank, in every worker and after every restart.

    Raises:
        ValueError: `chosen` is not between 0 and 1.
    """

    def __init__(self, tokenizer: TokenizerRecord, *, seed: int, chosen: float = 0.15) -> None:
        if not 0 < chosen < 1:
            raise ValueError(f"chosen must lie between 0 and 1, got {chosen}")
        self._mask = tokenizer.special_tokens.mask
        self._special = np.array(tokenizer.special_tokens.all)
        self._ordinary = np.setdiff1d(np.arange(tokenizer.vocabulary_size), self._special)
        self._seed = seed
        self._chosen = chosen

    def __call__(self, tokens: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masked tokens and the labels of a sequence, both (length,) int64.

        Labels are IGNORED where nothing is hidden.
        """
        choice, kind, replacement = _draws(self._seed, position, len(tokens))
        chosen = (choice < self._chosen) & ~np.isin(tokens, self._special)
        labels = np.where(chosen, tokens, IGNORED)
        masked = np.where(chosen & (kind < 0.8), self._mask, tokens)
        ordinary = self._ordinary[(replacement * len(self._ordinary)).astype(np.int64)]
        return np.where(chosen & (kind >= 0.9), ordinary, masked), labels


class MaskedSequences:
    """Sequences of which some tokens are hidden: `input_ids` shows what is left, `labels` what is to be predicted."""

    def __init__(self, sequences: Sequences, masking: Masking) -> None:
        self._sequences = sequences
        self._masking = masking
        self.tokenizer = sequences.tokenizer
        self.name = sequences.name
        self.fingerprint = sequences.fingerprint
        self.per_epoch = sequences.per_epoch
        self.padding: Mapping[str, int | float] = {**sequences.padding, "labels": IGNORED}

    def sequence(self, position: int) -> Sequence:
        """Returns the sequence with other input_ids and with labels, (length,) int64."""
        sequence = self._sequences.sequence(position)
        inputs, labels = self._masking(sequence["input_ids"], position)
        return {**sequence, "input_ids": inputs, "labels": labels}

    def length(self, position: int) -> int:
        """Returns the length of the sequence at a position."""
        return self._sequences.length(position)

    def longest(self, per_epoch: int) -> int | None:
        """Returns the longest length that gives an epoch `per_epoch` sequences."""
        return self._sequences.longest(per_epoch)


def masked_examples(
    split: Split, *, chosen: float, seed: int, limit: int | None, text: str = TEXT
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the documents of an evaluation split in their order, joined by the end token, with some tokens hidden.

    Which tokens are hidden depends on the seed, the number of the document in its split, and nothing else: it is the
    same for every model, whatever sequences it reads the text in.

    Args:
        split: where no document may be damaged.
        chosen: share of the tokens that are hidden, as in `Masking`.
        seed: of the masks.
        limit: number of tokens to stop after; None: read all documents.
        text: the name of the documents' token ids.

    Returns:
        What a model sees and the labels (IGNORED where nothing is hidden), both (length,) int64.

    Raises:
        DataError: a document is damaged.
    """
    masking = Masking(split.tokenizer, seed=seed, chosen=chosen)
    end = split.tokenizer.special_tokens.end
    seen: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    length, number = 0, 0
    for shard, record in enumerate(split.shards):
        for example in range(record.examples):
            if limit is not None and length >= limit:
                break
            found = split.read(shard, example)
            if found is None:
                raise DataError(f"{split.name}: a document for evaluation is damaged; prepare the data again")
            joined = np.append(found.tokens[text].astype(np.int64), end)
            for pieces, piece in zip((seen, labels), masking(joined, number), strict=True):
                pieces.append(piece)
            length += len(joined)
            number += 1
    return np.concatenate(seen)[:limit], np.concatenate(labels)[:limit]


def _draws(seed: int, position: int, count: int) -> np.ndarray:
    """Returns (3, count) numbers from [0, 1), the same for ever and on every machine.

    Counted hashes rather than NumPy's generators, whose streams may change between versions.
    """
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=16).digest()
    first, second = np.frombuffer(digest, dtype="<u8")
    counters = np.arange(3 * count, dtype=np.uint64)
    bits = mixed_array(mixed_array(counters ^ first) ^ second)
    return (bits >> np.uint64(11)).astype(np.float64).reshape(3, count) * 2.0**-53
