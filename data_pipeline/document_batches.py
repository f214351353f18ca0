"""Batches of rows made of documents: padded to their longest, gathered by length, masked."""

import hashlib
from collections.abc import Collection
from functools import lru_cache

import numpy as np
import torch

from data_pipeline.batches import Batch, RankBatches
from data_pipeline.masking import IGNORED, Masking
from data_pipeline.order import permutation
from data_pipeline.rows import Row, Rows, check_enough


class DocumentBatches(RankBatches):
    """The endless micro-batches of one rank, each a dictionary of int64 (micro_batch_size, longest row) tensors:

    - input_ids, padded at the end;
    - attention_mask: 1 at tokens, 0 at padding and where a damaged document would stand;
    - document_ids: 1, 2, 3 ... for the documents packed into a row, 0 where attention_mask is 0, so that a model can
      refuse attention from one document to another;
    - labels, where there is a `masking`: IGNORED at all tokens that are not hidden.

    Args:
        bucket_batches: rows of so many global batches are sorted by length and dealt out again, so that a batch holds
            rows of similar length; the batches then follow each other in shuffled order. 1: no sorting.
        seed: of that order.

    Raises:
        ValueError: as RankBatches, or `bucket_batches` is not positive.
        DataError: an epoch has fewer rows than one global batch.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        masking: Masking | None = None,
        bucket_batches: int = 1,
        seed: int = 0,
        workers: int = 0,
        left_out: Collection[int] = (),
    ) -> None:
        if bucket_batches < 1:
            raise ValueError(f"bucket_batches must be at least 1, got {bucket_batches}")
        check_enough(rows, global_batch_size=global_batch_size)
        buckets = "" if bucket_batches == 1 else f"{bucket_batches}:{global_batch_size}:{seed}"
        super().__init__(
            fingerprint=hashlib.sha256(f"{rows.fingerprint}:{buckets}".encode()).hexdigest(),
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
            left_out=left_out,
        )
        self._rows = rows
        self._masking = masking
        self._bucket_batches = bucket_batches
        self._seed = seed
        self._sorted_window = lru_cache(maxsize=2)(self._sort_window)

    def positions(self, positions: range) -> list[int]:
        """Return which rows of the order stand at these positions once they are gathered by length."""
        if self._bucket_batches == 1:
            return list(positions)
        size = self._bucket_batches * self._global_batch_size
        return [int(self._sorted_window(position // size)[position % size]) for position in positions]

    def _batch(self, positions: range) -> Batch:
        padding = self._rows.tokenizer.special.padding
        rows = [(position, self._rows.row(position)) for position in self.positions(positions)]
        shape = (len(rows), max(len(row.tokens) for _, row in rows))
        batch = {
            "input_ids": np.full(shape, padding, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "document_ids": np.zeros(shape, dtype=np.int64),
        }
        if self._masking:
            batch["labels"] = np.full(shape, IGNORED, dtype=np.int64)
        for number, (position, row) in enumerate(rows):
            for name, values in self._columns(position, row).items():
                batch[name][number, : len(values)] = values
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _columns(self, position: int, row: Row) -> dict[str, np.ndarray]:
        columns = {
            "input_ids": row.tokens,
            "attention_mask": row.documents > 0,
            "document_ids": row.documents,
        }
        if self._masking:
            columns["input_ids"], columns["labels"] = self._masking(row.tokens, position)
        return columns

    def _sort_window(self, window: int) -> np.ndarray:
        """Return the rows of a window of batches: sorted by length, cut into batches, the batches shuffled."""
        size = self._bucket_batches * self._global_batch_size
        rows = np.arange(window * size, (window + 1) * size)
        lengths = [self._rows.row_length(int(row)) for row in rows]
        batches = rows[np.argsort(lengths, kind="stable")].reshape(self._bucket_batches, -1)
        return batches[permutation(self._bucket_batches, (self._seed, "buckets", window))].ravel()
