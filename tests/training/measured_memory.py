"""What a real rank needs: its largest sum of live tensors while it trains, and what it writes into a checkpoint."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from longformer.cpu import buffer_pool
from longformer.cpu.buffer_pool import BufferPool
from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings
from longformer.training.objectives import Objective
from tests.training.small_model import SETTINGS, no_spikes

_all_reduce = torch.distributed.all_reduce


def all_reduce_that_lets_go(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
    """Reduce, and wait until no thread of Gloo holds the tensor: what such a thread frees last, no profiler sees."""
    holders = tensor._use_count()
    work = _all_reduce(tensor, *arguments, **options)
    while work is None and tensor._use_count() > holders:
        sleep(1e-4)
    return work


def peak_live_bytes(
    ranks: Ranks, model: Callable[[], nn.Module], batch: dict[str, torch.Tensor], objective: Objective, **settings: Any
) -> tuple[int, int]:
    """Make an engine, train two steps, and return the peak and the size of this rank's checkpoint, in bytes.

    Every micro-batch of a step is the same batch.

    The peak is by PyTorch's own count of what it allocates and frees.
    """
    written: EngineSettings = replace(SETTINGS, micro_batch_size=len(next(iter(batch.values()))), **settings)
    profiled = torch.autograd.profiler.profile(profile_memory=True, use_kineto=True)
    with patch.object(buffer_pool, "POOL", BufferPool()) as kept, profiled as profiler:
        engine = TrainingEngine(model(), written, ranks)
        with patch.object(torch.distributed, "all_reduce", all_reduce_that_lets_go):
            for _ in range(2):
                engine.train_step(
                    iter([batch] * written.accumulation_steps), objective, learning_rate=1e-3, guard=no_spikes()
                )
    assert not kept.free, "memory that is kept escapes PyTorch's count"
    live = peak = 0
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    with TemporaryDirectory() as folder:  # nothing is written, but DeepSpeed wants it to be there
        files = engine.state_files(Path(folder), "state")
    return peak, sum(len(content) for content in files.values())
