"""A checkpoint exists whole or not at all, says what it is, and gives back exactly what was saved."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longformer.training.checkpoints.manifest import Manifest, damage
from longformer.training.checkpoints.store import (
    checkpoint_path,
    committed_checkpoints,
    newest_good_checkpoint,
    prune_checkpoints,
)
from longformer.training.checkpoints.write import CheckpointWriter, restore
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings
from longformer.training.objectives import NEXT_CHARACTER
from longformer.training.records import Progress
from tests.training.rank_group import in_ranks
from tests.training.small_model import SETTINGS, micro_batches, no_spikes, small_engine

PROGRESS = Progress(step=3, global_step=13, tokens=1000, skipped_steps=1, seconds=2.5)


def writer(engine: TrainingEngine, directory: Path, *, kept: int = 2, in_background: bool = False) -> CheckpointWriter:
    return CheckpointWriter(directory, engine, "short", 1, "c0ffee", kept=kept, in_background=in_background)


def losses(engine: TrainingEngine, batches: Iterator[Any], steps: int) -> list[float]:
    return [
        engine.train_step(batches, NEXT_CHARACTER, learning_rate=0.01, guard=no_spikes()).loss for _ in range(steps)
    ]


def save_after_3_of_6_steps(
    ranks: Any, settings: EngineSettings, directory: Path, in_background: bool = False
) -> list[float]:
    engine = small_engine(ranks, settings, dropout=0.3)
    batches = micro_batches(ranks, settings, size=4)
    losses(engine, batches, 3)
    checkpoints = writer(engine, directory, in_background=in_background)
    checkpoints.save(PROGRESS, {"position": 12})
    last_losses = losses(engine, batches, 3)
    checkpoints.finish()
    return last_losses


def restore_and_do_3_steps(ranks: Any, settings: EngineSettings, checkpoint: Path) -> tuple[list[float], Manifest]:
    engine = small_engine(ranks, settings, dropout=0.3)
    manifest = restore(checkpoint, engine)
    return losses(engine, micro_batches(ranks, settings, size=4, first_step=3), 3), manifest


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_restored_engine_goes_on_bitwise_as_the_saved_one(
    zero_stage: Any, precision: Any, in_background: bool, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, zero_stage=zero_stage, precision=precision)
    expected = in_ranks(2, save_after_3_of_6_steps, settings, tmp_path, in_background)
    (checkpoint,) = committed_checkpoints(tmp_path)
    restored = in_ranks(2, restore_and_do_3_steps, settings, checkpoint)
    assert [found for found, _ in restored] == expected
    manifest = restored[0][1]
    assert manifest.progress == PROGRESS
    assert manifest.data == {"position": 12}
    assert (manifest.ranks, manifest.zero_stage, manifest.precision) == (2, zero_stage, precision)
    assert set(manifest.versions) == {"torch", "deepspeed", "longformer-train"}


def test_the_manifest_lists_every_file_and_any_change_is_found(tmp_path: Path) -> None:
    in_ranks(2, save_after_3_of_6_steps, SETTINGS, tmp_path)
    (checkpoint,) = committed_checkpoints(tmp_path)
    files = Manifest.read(checkpoint).files
    on_disk = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert on_disk == files.keys() | {"manifest.json"}
    assert {f"state/random-rank-{rank}.safetensors" for rank in range(2)} < files.keys()
    assert damage(checkpoint) is None
    for name in files:
        path = checkpoint / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert name in (damage(checkpoint) or "")
        path.write_bytes(content)
    assert damage(checkpoint) is None


def test_only_the_newest_checkpoints_stay_and_unfinished_ones_go(tmp_path: Path) -> None:
    (tmp_path / ".step-00000004.staging").mkdir()
    assert in_ranks(1, save_five_times, tmp_path) == [["step-00000004", "step-00000005"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def save_five_times(ranks: Any, directory: Path) -> list[str]:
    engine = small_engine(ranks, SETTINGS)
    saved = [writer(engine, directory).save(Progress(step=step), {}) for step in (1, 2, 3, 4, 5)]
    assert saved[-1] == checkpoint_path(directory, 5)
    return [path.name for path in committed_checkpoints(directory)]


def test_without_a_good_checkpoint_there_is_none(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert newest_good_checkpoint(tmp_path / "absent", warnings.append) is None
    checkpoint_path(tmp_path, 7).mkdir()
    assert newest_good_checkpoint(tmp_path, warnings.append) is None
    assert len(warnings) == 1
    prune_checkpoints(tmp_path, keep=1)
    assert committed_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 7)]
