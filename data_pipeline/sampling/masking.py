"""Dynamic masking for masked language models: which tokens are hidden is a function of the sample and nothing else."""

import hashlib

import numpy as np

from data_pipeline.sampling.order import mixed_array
from data_pipeline.shards.document_manifest import TokenizerRecord

IGNORED = -100
"""The label of a token that is not to be predicted."""


class Masking:
    """BERT's masking (Devlin et al. 2019, 3.1; spec section 4): every token that is not special is chosen with
    probability `chosen`; of the chosen, 80 percent become the mask token, 10 percent a random ordinary token, and 10
    percent stay.

    The draws depend on the seed and the position of the row in the endless order, so they differ from epoch to epoch
    and are the same on every rank, in every worker and after every restart.

    Raises:
        ValueError: `chosen` is not between 0 and 1.
    """

    def __init__(self, tokenizer: TokenizerRecord, *, seed: int, chosen: float = 0.15) -> None:
        if not 0 < chosen < 1:
            raise ValueError(f"chosen must lie between 0 and 1, got {chosen}")
        self._mask = tokenizer.special.mask
        self._special = np.array(tokenizer.special.all)
        self._ordinary = np.setdiff1d(np.arange(tokenizer.vocabulary_size), self._special)
        self._seed = seed
        self._chosen = chosen

    def __call__(self, tokens: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masked tokens and the labels of a row, both (length,) int64; labels are IGNORED where nothing is
        hidden."""
        choice, kind, replacement = _draws(self._seed, position, len(tokens))
        chosen = (choice < self._chosen) & ~np.isin(tokens, self._special)
        labels = np.where(chosen, tokens, IGNORED)
        masked = np.where(chosen & (kind < 0.8), self._mask, tokens)
        ordinary = self._ordinary[(replacement * len(self._ordinary)).astype(np.int64)]
        return np.where(chosen & (kind >= 0.9), ordinary, masked), labels


def _draws(seed: int, position: int, count: int) -> np.ndarray:
    """Return (3, count) numbers from [0, 1), the same for ever and on every machine.

    Counted hashes rather than NumPy's generators, whose streams may change between versions.
    """
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=16).digest()
    first, second = np.frombuffer(digest, dtype="<u8")
    counters = np.arange(3 * count, dtype=np.uint64)
    bits = mixed_array(mixed_array(counters ^ first) ^ second)
    return (bits >> np.uint64(11)).astype(np.float64).reshape(3, count) * 2.0**-53
