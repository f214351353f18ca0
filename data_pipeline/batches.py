"""Batches of equally long sequences: one rank's view of an order that all ranks share.

The global batch of a step is the same whatever the number of ranks, and the whole state is one integer, so training
can stop and go on anywhere.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from data_pipeline.errors import DataError
from data_pipeline.order import sample_at
from data_pipeline.reader import TokenStream


class SequenceBatches:
    """The endless micro-batches of one rank.

    Sequence i of length L is the tokens i*L .. i*L + L, both included: L inputs and, one further, L targets. Step t
    trains on the sequences at positions t*G .. (t+1)*G - 1 of the order (G = `global_batch_size`), of which each rank
    takes an equal part, in `micro_batch_size` at a time. Global batches that begin at a position in `left_out` are
    passed over.

    Raises:
        ValueError: a size is not positive, or the global batch is not a whole number of micro-batches on every rank.
        DataError: the stream holds fewer sequences than one global batch.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        sequence_length: int,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        left_out: Collection[int] = (),
    ) -> None:
        if min(sequence_length, global_batch_size, micro_batch_size, world_size) < 1 or not 0 <= rank < world_size:
            raise ValueError("sequence length, batch sizes and world size must be positive, rank below the world size")
        if global_batch_size % (micro_batch_size * world_size):
            raise ValueError(
                f"a global batch of {global_batch_size} is not a whole number of micro-batches of {micro_batch_size} "
                f"on {world_size} ranks"
            )
        self.sequences = max(0, (len(stream) - 1) // sequence_length)
        """Sequences in one epoch."""
        if self.sequences < global_batch_size:
            longest = (len(stream) - 1) // global_batch_size
            raise DataError(
                f"{stream.split} has {len(stream):,} tokens, that is {self.sequences} sequences of {sequence_length}, "
                f"fewer than one global batch of {global_batch_size}: prepare more text, use sequences of at most "
                f"{longest}" + (f" or a batch of at most {self.sequences}" if self.sequences else "")
            )
        self._stream = stream
        self._sequence_length = sequence_length
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._rank_share = range(
            global_batch_size // world_size * rank, global_batch_size // world_size * (rank + 1), micro_batch_size
        )
        self._seed = seed
        self._left_out = frozenset(left_out)
        self._position = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield {"tokens": int64 (micro_batch_size, sequence_length + 1)} without end, from the current position.

        Raises:
            DataError: a shard is damaged.
        """
        while True:
            while self._position in self._left_out:
                self._position += self._global_batch_size
            step_start = self._position
            for offset in self._rank_share:
                first = step_start + offset
                batch = self._batch(range(first, first + self._micro_batch_size))
                # Counted before the last micro-batch is handed out, so that the state is right at the step's end.
                if offset == self._rank_share[-1]:
                    self._position = step_start + self._global_batch_size
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return where to go on: at the first step of which not all micro-batches were handed out."""
        return {"position": self._position, "fingerprint": self._stream.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, also with another number of ranks or another micro-batch size.

        Raises:
            DataError: the state belongs to other data.
        """
        if state["fingerprint"] != self._stream.fingerprint:
            raise DataError(
                f"the data has changed since the checkpoint: its fingerprint was {state['fingerprint'][:12]} and is "
                f"{self._stream.fingerprint[:12]} now; give the data it was trained on, or start a new run"
            )
        self._position = int(state["position"])

    def mock_batch(self) -> dict[str, torch.Tensor]:
        """Return a batch of the usual shape and kind, without moving on."""
        return self._batch(range(self._micro_batch_size))

    def _batch(self, positions: range) -> dict[str, torch.Tensor]:
        length = self._sequence_length
        tokens = np.empty((len(positions), length + 1), dtype=np.int64)
        for row, position in enumerate(positions):
            start = sample_at(position, epoch_size=self.sequences, seed=self._seed) * length
            tokens[row] = self._stream.read(start, start + length + 1)
        return {"tokens": torch.from_numpy(tokens)}
