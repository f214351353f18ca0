"""Training goes on with another number of ranks and another ZeRO stage as if nothing had happened."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest

from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import Manifest, damage
from longformer.training.checkpoints.reshard import universal_copy
from longformer.training.checkpoints.store import (
    checkpoint_path,
    committed_checkpoints,
    prune_checkpoints,
    universal_path,
)
from longformer.training.checkpoints.write import CheckpointWriter, restore
from longformer.training.engine import TrainingEngine
from longformer.training.engine_settings import EngineSettings
from longformer.training.objectives import NEXT_CHARACTER
from longformer.training.records import Progress
from tests.training.rank_group import in_ranks
from tests.training.small_model import SETTINGS, micro_batches, no_spikes, small_engine

GLOBAL_BATCH = 12


def settings_for(ranks: int, zero_stage: Any, precision: Any = "fp32", layer_decay: float = 1.0) -> EngineSettings:
    return replace(
        SETTINGS,
        zero_stage=zero_stage,
        precision=precision,
        micro_batch_size=GLOBAL_BATCH // ranks,
        layer_decay=layer_decay,
    )


def step_losses(ranks: Any, engine: TrainingEngine, first_step: int, steps: int) -> list[float]:
    batches = micro_batches(ranks, engine.settings, size=GLOBAL_BATCH, first_step=first_step)
    return [
        engine.train_step(batches, NEXT_CHARACTER, learning_rate=0.01, guard=no_spikes()).loss for _ in range(steps)
    ]


def train_and_save(
    ranks: Any, settings: EngineSettings, directory: Path, *, frozen: bool = False
) -> tuple[list[float], dict[str, numpy.ndarray]]:
    engine = small_engine(ranks, settings, frozen=frozen)
    step_losses(ranks, engine, 0, 3)
    CheckpointWriter(directory, engine, phase="short", phase_index=0, config_fingerprint="c0ffee", kept=2).save(
        Progress(step=3, global_step=3), {"position": 36}
    )
    weights = weights_of(engine)
    return step_losses(ranks, engine, 3, 4), weights


def go_on(
    ranks: Any, settings: EngineSettings, checkpoint: Path, *, frozen: bool = False
) -> tuple[list[float], dict[str, numpy.ndarray], Manifest]:
    engine = small_engine(ranks, settings, frozen=frozen)
    manifest = restore(checkpoint, engine)
    weights = weights_of(engine)
    return step_losses(ranks, engine, 3, 4), weights, manifest


def weights_of(engine: TrainingEngine) -> dict[str, numpy.ndarray]:
    return {name: tensor.numpy() for name, tensor in engine.full_weights().items()}


CHANGES = [
    ((2, 1), (1, 3)),
    ((2, 2), (3, 2)),
    ((3, 3), (2, 1)),
    ((2, 0), (1, 2)),
    ((1, 3), (2, 0)),
]


@pytest.mark.parametrize(("precision", "frozen", "layer_decay"), [("fp32", True, 1.0), ("bf16", False, 0.5)])
@pytest.mark.parametrize(("written", "present"), CHANGES)
def test_another_number_of_ranks_and_another_stage_go_on_with_the_same_losses(
    written: tuple[int, int], present: tuple[int, int], precision: str, frozen: bool, layer_decay: float, tmp_path: Path
) -> None:
    train, resume = (partial(function, frozen=frozen) for function in (train_and_save, go_on))
    expected, weights = in_ranks(written[0], train, settings_for(*written, precision, layer_decay), tmp_path)[0]
    (checkpoint,) = committed_checkpoints(tmp_path)
    copy = universal_copy(checkpoint)
    found, restored, manifest = in_ranks(present[0], resume, settings_for(*present, precision, layer_decay), copy)[0]
    numpy.testing.assert_equal(restored, weights)
    # Later losses tell whether moments, step counters and decay came along; sums run in another order now.
    assert found == pytest.approx(expected, rel=1e-3)
    assert manifest.progress == Progress(step=3, global_step=3)
    assert manifest.data == {"position": 36}


@pytest.mark.parametrize(
    ("written", "present", "offloaded"),
    [((2, 2), (2, 2), True), ((2, 3), (2, 3), False), ((2, 1), (1, 3), True), ((2, 3), (1, 2), False)],
)
def test_an_optimizer_moves_to_main_memory_and_back_with_a_checkpoint(
    written: tuple[int, int], present: tuple[int, int], offloaded: bool, tmp_path: Path
) -> None:
    before, after = (
        replace(settings_for(*ranks_and_stage, "bf16"), offload_optimizer=is_offloaded)
        for ranks_and_stage, is_offloaded in ((written, offloaded), (present, not offloaded))
    )
    expected, weights = in_ranks(written[0], train_and_save, before, tmp_path)[0]
    (checkpoint,) = committed_checkpoints(tmp_path)
    fitting = checkpoint if written == present else universal_copy(checkpoint)
    found, restored, _ = in_ranks(present[0], go_on, after, fitting)[0]
    numpy.testing.assert_equal(restored, weights)
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_copy_is_made_once_and_again_when_it_is_damaged(tmp_path: Path) -> None:
    in_ranks(1, train_and_save, settings_for(1, 2), tmp_path)
    (checkpoint,) = committed_checkpoints(tmp_path)
    copy = universal_copy(checkpoint)
    assert copy == universal_path(checkpoint)
    written = (copy / "manifest.json").stat().st_mtime_ns
    assert universal_copy(checkpoint) == copy
    assert (copy / "manifest.json").stat().st_mtime_ns == written
    victim = next(copy.rglob("exp_avg.pt"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert damage(copy) is not None
    assert damage(universal_copy(checkpoint)) is None


def test_a_copy_goes_with_its_checkpoint(tmp_path: Path) -> None:
    in_ranks(1, train_and_save, settings_for(1, 2), tmp_path)
    (checkpoint,) = committed_checkpoints(tmp_path)
    copy = universal_copy(checkpoint)
    prune_checkpoints(tmp_path, keep=1)
    assert copy.exists()
    checkpoint_path(tmp_path, 4).mkdir()
    prune_checkpoints(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-00000004"]


def test_ranks_that_a_checkpoint_does_not_fit_are_told_the_remedy(tmp_path: Path) -> None:
    in_ranks(2, train_and_save, settings_for(2, 1), tmp_path)
    (checkpoint,) = committed_checkpoints(tmp_path)
    (message,) = in_ranks(1, refusal, settings_for(1, 1), checkpoint)
    assert "written by 2 ranks with ZeRO stage 1, not by 1 with stage 1" in message
    assert "longformer checkpoint reshard" in message
    (message,) = in_ranks(1, refusal, settings_for(1, 1, "bf16"), checkpoint)
    assert "go on with precision fp32" in message


def refusal(ranks: Any, settings: EngineSettings, checkpoint: Path) -> str:
    with pytest.raises(LongformerError) as caught:
        restore(checkpoint, small_engine(ranks, settings))
    return str(caught.value)
