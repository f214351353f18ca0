"""The checkpoints of one phase on disk: which exist, which is the newest good one, which may go.

A directory counts only under its final name, which it gets by one rename after everything in it is synced.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from longformer.files import commit_directory
from longformer.training.checkpoints.manifest import Manifest, damage


def checkpoint_path(directory: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies once it is committed."""
    return directory / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Returns the step of the phase at which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def universal_path(checkpoint: Path) -> Path:
    """Returns where the copy of a checkpoint lies that fits any number of ranks."""
    return checkpoint.with_name(f"universal-{checkpoint.name}")


def committed_checkpoints(directory: Path) -> list[Path]:
    """Returns the committed checkpoints, oldest first."""
    return sorted(directory.glob("step-*"))


def best_before(checkpoint: Path) -> Path | None:
    """Returns where the checkpoint lies that was the best when this one was written, None where none was to be told."""
    step = Manifest.read(checkpoint).progress.best_step
    return None if step is None else checkpoint_path(checkpoint.parent, step)


def newest_good_checkpoint(directory: Path, warn: Callable[[str], None]) -> Path | None:
    """Returns the newest checkpoint whose every file is as written, and that of the best one before it, or None.

    Each damaged one is told to `warn`.
    """
    for checkpoint in reversed(committed_checkpoints(directory)):
        problem = damage(checkpoint)
        if problem is None and (best := best_before(checkpoint)):
            problem = damage(best)
        if problem is None:
            return checkpoint
        warn(f"{problem}; going back to the checkpoint before it")
    return None


def prune_checkpoints(
    directory: Path, keep: int, *, permanent_every: int | None = None, spared: Collection[Path | None] = ()
) -> None:
    """Removes old checkpoints, and what died processes left half-written or half-removed.

    Args:
        directory: the checkpoints of a phase.
        keep: how many of the newest stay.
        permanent_every: checkpoints at multiples of so many steps stay too; None = no others stay.
        spared: others that stay.
    """
    for checkpoint in committed_checkpoints(directory)[:-keep]:
        is_permanent = permanent_every is not None and step_of(checkpoint) % permanent_every == 0
        if not is_permanent and checkpoint not in spared:
            remove_checkpoint(checkpoint)
    kept = {universal_path(checkpoint) for checkpoint in committed_checkpoints(directory)}
    for copy in set(directory.glob("universal-*")) - kept:
        remove_checkpoint(copy)
    for leftover in (*directory.glob(".step-*"), *directory.glob(".universal-*")):
        shutil.rmtree(leftover)


def commit(staging: Path, target: Path) -> None:
    """Gives a directory whose files are synced its final name; a damaged one of that name goes."""
    if target.exists():
        # Only a damaged checkpoint is ever written again: training went back behind it.
        remove_checkpoint(target)
    commit_directory(staging, target)


def remove_later(checkpoint: Path) -> None:
    """Removes the checkpoints of later steps: training went back behind them, because they could not be used."""
    for other in committed_checkpoints(checkpoint.parent):
        if step_of(other) > step_of(checkpoint):
            remove_checkpoint(other)


def remove_checkpoint(checkpoint: Path) -> None:
    """Removes a checkpoint so that a half-removed one never looks committed."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.removed")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)
