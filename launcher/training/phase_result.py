"""The result of a phase: the model, evaluated on held-out text, in one directory that exists whole or not at all.

result/model/             the whole weights in fp32 and what goes with them, as the run's task writes them
result/evaluation.json    held-out scores and what the phase cost
result/manifest.json      where training stood; every file's checksum
"""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from longformer.errors import LongformerError
from longformer.files import committed_directory, write_json
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.distributed import Ranks
from longformer.training.engine import TrainingEngine


class StopRequested(Exception):
    """Evaluation was left on request; the phase's last checkpoint is committed already."""


def leaving_if_asked(
    ranks: Ranks, stop_requested: Callable[[], bool], heartbeat: Callable[[], None]
) -> Callable[[int, int], None]:
    """Returns what evaluation calls after every forward call, on all ranks: it leaves when any rank was asked to.

    Raises (when called):
        StopRequested: a rank was asked to stop meanwhile; all ranks leave after the same forward call.
    """

    def leave_if_asked(done: int, total: int) -> None:
        heartbeat()
        # A rank that left alone would make the others fail in their next exchange.
        if ranks.any_wants(stop_requested()):
            raise StopRequested

    return leave_if_asked


def peak_memory_bytes(engine: TrainingEngine) -> int:
    """Returns the largest memory that any rank has needed: of its CUDA device, else of its process."""
    if engine.ranks.device.type == "cuda":
        mine = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return engine.ranks.largest(mine)


def commit_result(
    target: Path, *, write_model: Callable[[Path], None], evaluation: dict[str, Any], manifest: Manifest
) -> None:
    """Writes the result directory; called by one rank.

    Args:
        target: where it appears.
        write_model: writes the model into a directory that does not exist.
        evaluation: content of evaluation.json.
        manifest: where training stands; its file list is filled in here.

    Raises:
        LongformerError: it cannot be written.
    """
    try:
        with committed_directory(target) as staging:
            write_model(staging / "model")
            write_json(staging / "evaluation.json", evaluation)
            manifest.with_files_of(staging).write(staging)
    except OSError as error:
        raise LongformerError(
            f"the result of the phase could not be written to {target} ({error}); make room, then resume"
        ) from error
