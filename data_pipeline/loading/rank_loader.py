"""Batches: one rank's view of an order that all ranks share.

The global batch of a step is the same whatever the number of ranks and of loader workers, and the whole state is one
integer, so training can stop and go on anywhere.
"""

import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_pipeline.errors import DataError
from data_pipeline.sampling.order import sample_at
from data_pipeline.shards.stream_reader import TokenStream

Batch = dict[str, torch.Tensor]


class RankBatches(ABC):
    """The endless micro-batches of one rank.

    Step t trains on the samples at positions t*G .. (t+1)*G - 1 of an endless order (G = `global_batch_size`), of which
    each rank takes an equal part, in `micro_batch_size` at a time. Global batches that begin at a position in
    `left_out` are passed over. With `workers` > 0 so many processes make the batches ahead of time; the batches are
    the same.

    Raises:
        ValueError: a size is not positive, or the global batch is not a whole number of micro-batches on every rank.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        workers: int = 0,
        left_out: Collection[int] = (),
    ) -> None:
        if min(global_batch_size, micro_batch_size, world_size) < 1 or not 0 <= rank < world_size or workers < 0:
            raise ValueError("batch sizes and world size must be positive, rank below the world size")
        if global_batch_size % (micro_batch_size * world_size):
            raise ValueError(
                f"a global batch of {global_batch_size} is not a whole number of micro-batches of {micro_batch_size} "
                f"on {world_size} ranks"
            )
        self._fingerprint = fingerprint
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._rank_share = range(
            global_batch_size // world_size * rank, global_batch_size // world_size * (rank + 1), micro_batch_size
        )
        self._workers = workers
        self._left_out = frozenset(left_out)
        self._position = 0

    @abstractmethod
    def _batch(self, positions: range) -> Batch:
        """Return the samples at these positions of the endless order; all tensors have the same dtype."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield micro-batches without end, from the current position.

        Raises:
            DataError: a shard is damaged.
        """
        batches = self._batches(self._position)
        while True:
            self._position = step_start = self._next_step(self._position)
            for offset in self._rank_share:
                batch = next(batches)
                # Counted before the last micro-batch is handed out, so that the state is right at the step's end.
                if offset == self._rank_share[-1]:
                    self._position = step_start + self._global_batch_size
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return where to go on: at the first step of which not all micro-batches were handed out."""
        return {"position": self._next_step(self._position), "fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, also with another number of ranks or workers or another micro-batch size.

        Raises:
            DataError: the state belongs to other data.
        """
        if state["fingerprint"] != self._fingerprint:
            raise DataError(
                f"the data has changed since the checkpoint: its fingerprint was {state['fingerprint'][:12]} and is "
                f"{self._fingerprint[:12]} now; give the data it was trained on, or start a new run"
            )
        self._position = int(state["position"])

    def mock_batch(self) -> Batch:
        """Return a batch of the usual shape and kind, without moving on."""
        return self._batch(range(self._micro_batch_size))

    def _batches(self, position: int) -> Iterator[Batch]:
        if self._workers == 0:
            yield from (self._batch(positions) for positions in self._micro_batches(position))
            return
        loader = DataLoader(
            _BatchesByPositions(self),
            sampler=self._micro_batches(position),
            batch_size=None,
            num_workers=self._workers,
            # Of its own, so that making a loader draws nothing from the generator that training's dropout uses.
            generator=torch.Generator(),
        )
        with _processes_that_end_only_with_this_one():
            made_ahead = iter(loader)
        for handed_over in made_ahead:
            if isinstance(handed_over, DataError):
                raise handed_over
            shapes, values = handed_over
            tensors = values.split([math.prod(shape) for shape in shapes.values()])
            yield {name: tensor.view(shape) for (name, shape), tensor in zip(shapes.items(), tensors, strict=True)}

    def _micro_batches(self, position: int) -> Iterator[range]:
        while True:
            position = self._next_step(position)
            for offset in self._rank_share:
                yield range(position + offset, position + offset + self._micro_batch_size)
            position += self._global_batch_size

    def _next_step(self, position: int) -> int:
        while position in self._left_out:
            position += self._global_batch_size
        return position


class _BatchesByPositions(Dataset[Any]):
    """What a loader worker is asked for.

    A batch is handed over as the shapes of its tensors and one tensor of all their values, which costs half of what one
    tensor per name does; an expected failure as a value, not as a traceback.
    """

    def __init__(self, batches: RankBatches) -> None:
        self._batches = batches

    def __getitem__(self, positions: range) -> tuple[dict[str, torch.Size], torch.Tensor] | DataError:
        try:
            batch = self._batches._batch(positions)
        except DataError as error:
            return error
        shapes = {name: tensor.shape for name, tensor in batch.items()}
        return shapes, torch.cat([tensor.flatten() for tensor in batch.values()])


@contextmanager
def _processes_that_end_only_with_this_one() -> Iterator[None]:
    """Keep processes that are started inside from the signals that ask a rank to stop, and end them with this process.

    A worker that dies of such a signal would take the rank down with it. The workers inherit the blocked signals, so
    there is no moment in which they could be hit. That includes the SIGTERM with which `multiprocessing` ends them
    when this process exits while their loader is still referenced, and for which it would wait forever.
    """
    running = set(active_children())
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for process in set(active_children()) - running:
            Finalize(None, process.kill, exitpriority=0)  # before `multiprocessing` waits for them


class SequenceBatches(RankBatches):
    """Equally long sequences of one stream of tokens.

    Sequence i of length L is the tokens i*L .. i*L + L, both included: L inputs and, one further, L targets. A batch is
    {"tokens": int64 (micro_batch_size, L + 1)}.

    Raises:
        ValueError: as RankBatches, or the sequence length is not positive.
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
        workers: int = 0,
        left_out: Collection[int] = (),
    ) -> None:
        if sequence_length < 1:
            raise ValueError("the sequence length must be positive")
        super().__init__(
            fingerprint=stream.fingerprint,
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
            left_out=left_out,
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
        self._seed = seed

    def _batch(self, positions: range) -> Batch:
        length = self._sequence_length
        tokens = np.empty((len(positions), length + 1), dtype=np.int64)
        for row, position in enumerate(positions):
            start = sample_at(position, epoch_size=self.sequences, seed=self._seed) * length
            tokens[row] = self._stream.read(start, start + length + 1)
        return {"tokens": torch.from_numpy(tokens)}
