"""Batches: one rank's view of an order that all ranks share.

The global batch of a step is the same whatever the number of ranks and of loader workers, and the whole state is one
integer, so training can stop and go on anywhere.
"""

import hashlib
import math
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_pipeline.errors import DataError
from data_pipeline.sampling.base import Sequences, check_enough
from data_pipeline.sampling.order import permutation

Batch = dict[str, torch.Tensor]


class Batches:
    """The endless micro-batches of one rank: the sequences' arrays by name, in their own types, padded at the end.

    Step t trains on the sequences at positions t*G .. (t+1)*G - 1 of an endless order (G = `global_batch_size`), of
    which each rank takes an equal part, `micro_batch_size` at a time.

    Args:
        bucket_batches: number of global batches whose sequences are sorted by length and dealt out again, so that a
            batch holds sequences of similar length; the batches then follow each other shuffled. 1: not sorted.
        seed: of that order.
        workers: number of processes that make the batches ahead of time; the batches are the same.
        skipped: positions; the global batches that begin there are passed over.

    Raises:
        ValueError: a size is not positive, or the global batch is not a whole number of micro-batches on every rank.
        DataError: an epoch has fewer sequences than one global batch.
    """

    def __init__(
        self,
        sequences: Sequences,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        bucket_batches: int = 1,
        seed: int = 0,
        workers: int = 0,
        skipped: Collection[int] = (),
    ) -> None:
        if min(global_batch_size, micro_batch_size, world_size) < 1 or not 0 <= rank < world_size or workers < 0:
            raise ValueError("batch sizes and world size must be positive, rank below the world size")
        if global_batch_size % (micro_batch_size * world_size):
            raise ValueError(
                f"a global batch of {global_batch_size} is not a whole number of micro-batches of {micro_batch_size} "
                f"on {world_size} ranks"
            )
        if bucket_batches < 1:
            raise ValueError(f"bucket_batches must be at least 1, got {bucket_batches}")
        check_enough(sequences, global_batch_size=global_batch_size)
        self.sequences = sequences
        buckets = "" if bucket_batches == 1 else f"{bucket_batches}:{global_batch_size}:{seed}"
        self._fingerprint = hashlib.sha256(f"{sequences.fingerprint}:{buckets}".encode()).hexdigest()
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        share = global_batch_size // world_size
        self._rank_share = range(share * rank, share * (rank + 1), micro_batch_size)
        self._bucket_batches = bucket_batches
        self._seed = seed
        self._workers = workers
        self._skipped = frozenset(skipped)
        self._position = 0
        self._sorted: dict[int, np.ndarray] = {}  # the windows in work; a cache of functools could not go to a worker

    def __iter__(self) -> Iterator[Batch]:
        """Yields micro-batches without end, from the current position.

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
        """Returns where to go on: at the first step of which not all micro-batches were handed out."""
        return {"position": self._next_step(self._position), "fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken, also with another number of ranks or workers or another micro-batch size.

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
        """Returns a batch of the usual shape and kind, without moving on."""
        return self.batch(range(self._micro_batch_size))

    def batch(self, positions: range) -> Batch:
        """Returns the sequences at these positions of the endless order as one batch."""
        sequences = [self.sequences.sequence(position) for position in self.positions(positions)]
        padding = self.sequences.padding
        return {
            name: _padded([sequence[name] for sequence in sequences], padding.get(name, 0)) for name in sequences[0]
        }

    def positions(self, positions: range) -> list[int]:
        """Returns which sequences of the order stand at these positions once they are gathered by length."""
        if self._bucket_batches == 1:
            return list(positions)
        size = self._bucket_batches * self._global_batch_size
        return [int(self._window(position // size)[position % size]) for position in positions]

    def _window(self, window: int) -> np.ndarray:
        """Returns the positions of a window of batches: sorted by length, cut into batches, the batches shuffled."""
        if window not in self._sorted:
            self._sorted = {**dict(list(self._sorted.items())[-1:]), window: self._sort_window(window)}
        return self._sorted[window]

    def _sort_window(self, window: int) -> np.ndarray:
        size = self._bucket_batches * self._global_batch_size
        positions = np.arange(window * size, (window + 1) * size)
        lengths = [self.sequences.length(int(position)) for position in positions]
        batches = positions[np.argsort(lengths, kind="stable")].reshape(self._bucket_batches, -1)
        return batches[permutation(self._bucket_batches, (self._seed, "buckets", window))].ravel()

    def _batches(self, position: int) -> Iterator[Batch]:
        if self._workers == 0:
            yield from (self.batch(positions) for positions in self._micro_batches(position))
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
        try:
            for handed_over in made_ahead:
                if isinstance(handed_over, DataError):
                    raise handed_over
                yield _unpacked(*handed_over)
        finally:
            del made_ahead  # which ends the workers, also where an error that is kept keeps this frame

    def _micro_batches(self, position: int) -> Iterator[range]:
        while True:
            position = self._next_step(position)
            for offset in self._rank_share:
                yield range(position + offset, position + offset + self._micro_batch_size)
            position += self._global_batch_size

    def _next_step(self, position: int) -> int:
        while position in self._skipped:
            position += self._global_batch_size
        return position


def _padded(arrays: list[np.ndarray], filling: int | float) -> torch.Tensor:
    """Returns arrays as one tensor of their type; shorter ones are filled up at the end of every dimension."""
    if len({array.shape for array in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays))
    largest = np.max([array.shape for array in arrays], axis=0)
    padded = np.full((len(arrays), *largest), filling, dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return torch.from_numpy(padded)


Shapes = dict[str, tuple[torch.dtype, torch.Size]]
Values = dict[torch.dtype, torch.Tensor]


def _packed(batch: Batch) -> tuple[Shapes, Values]:
    """Returns the types and shapes of a batch, and one tensor with all values of each type.

    A tensor costs a worker about the same whatever its size, so few are handed over.
    """
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in batch.items()}
    types = {dtype for dtype, _ in shapes.values()}
    return shapes, {
        dtype: torch.cat([tensor.flatten() for tensor in batch.values() if tensor.dtype == dtype]) for dtype in types
    }


def _unpacked(shapes: Shapes, values: Values) -> Batch:
    """Returns the batch that `_packed` was given, as views."""
    starts = dict.fromkeys(values, 0)
    batch = {}
    for name, (dtype, shape) in shapes.items():
        size = math.prod(shape)
        batch[name] = values[dtype][starts[dtype] : starts[dtype] + size].view(shape)
        starts[dtype] += size
    return batch


class _BatchesByPositions(Dataset[Any]):
    """What a loader worker is asked for; an expected failure is handed over as a value, not as a traceback."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, positions: range) -> tuple[Shapes, Values] | DataError:
        try:
            return _packed(self._batches.batch(positions))
        except DataError as error:
            return error


@contextmanager
def _processes_that_end_only_with_this_one() -> Iterator[None]:
    """Keeps processes started inside from the signals that ask a rank to stop, and ends them with this process.

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
