"""Batches of rows made of documents: padded to their longest, gathered by length, masked."""

import hashlib
from collections.abc import Collection
from functools import lru_cache

import numpy as np
import torch

from data_pipeline.loading.rank_loader import Batch, RankBatches
from data_pipeline.sampling.masking import IGNORED, Masking
from data_pipeline.sampling.order import permutation
from data_pipeline.sampling.sequences import Rows, check_enough


class DocumentBatches(RankBatches):
    """The endless micro-batches of one rank, each a dictionary of int64 (micro_batch_size, longest) tensors that are
    padded at the end. They are the columns of the rows; of plain documents:

    - input_ids;
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
        rows = [self._columns(position) for position in self.positions(positions)]
        return {name: self._padded(name, [columns[name] for columns in rows]) for name in rows[0]}

    def _columns(self, position: int) -> dict[str, np.ndarray]:
        row = self._rows.row(position)
        columns = row.columns()
        if self._masking:
            columns["input_ids"], columns["labels"] = self._masking(row.tokens, position)
        return columns

    def _padded(self, name: str, values: list[np.ndarray]) -> torch.Tensor:
        filling = {"input_ids": self._rows.tokenizer.special.padding, "labels": IGNORED}.get(name, 0)
        padded = np.full((len(values), max(map(len, values))), filling, dtype=np.int64)
        for row, of_row in zip(padded, values, strict=True):
            row[: len(of_row)] = of_row
        return torch.from_numpy(padded)

    def _sort_window(self, window: int) -> np.ndarray:
        """Return the rows of a window of batches: sorted by length, cut into batches, the batches shuffled."""
        size = self._bucket_batches * self._global_batch_size
        rows = np.arange(window * size, (window + 1) * size)
        lengths = [self._rows.row_length(int(row)) for row in rows]
        batches = rows[np.argsort(lengths, kind="stable")].reshape(self._bucket_batches, -1)
        return batches[permutation(self._bucket_batches, (self._seed, "buckets", window))].ravel()
