"""The result of a phase: the model, judged on held-out text, in one directory that exists whole or not at all.

result/model/{config.json, model.safetensors, vocabulary.json}   the whole weights in fp32
result/evaluation.json                                           bits per character and what the phase cost
result/manifest.json                                             where training stood; every file's checksum
"""

import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from data_pipeline.prepared import PreparedData
from launcher.run_sections import EvaluationSection
from longformer.errors import LongformerError
from longformer.evaluation.bits_per_character import evaluate_bits_per_character
from longformer.files import sync_directory, sync_file, write_json
from longformer.models.char_lm import CharacterLM
from longformer.models.config import CharacterModelConfig
from longformer.training.checkpoints.manifest import Manifest
from longformer.training.engine import TrainingEngine


class StopRequested(Exception):
    """Evaluation was left on request; the phase's last checkpoint is committed already."""


def evaluate_splits(
    engine: TrainingEngine,
    data: PreparedData,
    settings: EvaluationSection,
    *,
    with_test: bool,
    stop_requested: Callable[[], bool],
    heartbeat: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """Return bits per character of the validation split and, on request, of the whole test split.

    All ranks share the work and must call it.

    Raises:
        StopRequested: a rank was asked to stop meanwhile; all ranks leave after the same forward call.
    """

    def leave_if_asked(done: int, total: int) -> None:
        heartbeat()
        # A rank that left alone would make the others fail in their next exchange.
        if engine.ranks.any_wants(stop_requested()):
            raise StopRequested

    limits = {"validation": settings.limit_tokens} | ({"test": None} if with_test else {})
    results = {}
    for name, limit in limits.items():
        stream = data.split(name)
        score = evaluate_bits_per_character(
            engine.model,
            stream.read(0, min(len(stream), limit or len(stream))),
            sequence_length=settings.sequence_length,
            stride=settings.stride,
            batch_size=settings.batch_size,
            rank=engine.ranks.rank,
            world_size=engine.ranks.world_size,
            report_progress=leave_if_asked,
        )
        results[name] = {
            "bits_per_character": score.bits,
            "scored": score.scored,
            "scored_without_full_context": score.scored_without_full_context,
            "sequence_length": settings.sequence_length,
            "stride": settings.stride,
        }
    return results


def peak_memory_bytes(engine: TrainingEngine) -> int:
    """Return the largest memory that any rank has needed: of its CUDA device, else of its process."""
    if engine.ranks.device.type == "cuda":
        mine = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    largest = torch.tensor(mine, dtype=torch.int64, device=engine.ranks.device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def commit_result(
    target: Path,
    *,
    model_config: CharacterModelConfig,
    weights: dict[str, Tensor],
    data: PreparedData,
    evaluation: dict[str, Any],
    manifest: Manifest,
) -> None:
    """Write the result directory; called by one rank.

    Args:
        target: where it appears.
        model_config: the model's shape in this phase.
        weights: every parameter, whole.
        data: whose vocabulary goes with the model.
        evaluation: content of evaluation.json.
        manifest: where training stands; its file list is filled in here.

    Raises:
        LongformerError: it cannot be written.
    """
    staging = target.with_name(f".{target.name}.staging")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        model = CharacterLM(model_config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        model.save_pretrained(staging / "model")
        shutil.copyfile(data.directory / "vocabulary.json", staging / "model" / "vocabulary.json")
        sync_file(staging / "model" / "vocabulary.json")
        write_json(staging / "evaluation.json", evaluation)
        manifest.with_files_of(staging).write(staging)
        sync_directory(staging / "model")
        staging.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise LongformerError(
            f"the result of the phase could not be written to {target} ({error}); make room, then resume"
        ) from error
