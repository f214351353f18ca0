"""Writing and reading a checkpoint: stage, write, sync, manifest, one rename. It exists whole or not at all."""

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from longformer.errors import LongformerError
from longformer.files import empty_staging, staging_of, sync_file
from longformer.training.checkpoints.copies import CheckpointCopies
from longformer.training.checkpoints.manifest import Manifest, describe_file
from longformer.training.checkpoints.store import (
    best_before,
    checkpoint_path,
    commit,
    committed_checkpoints,
    prune_checkpoints,
    remove_later,
)
from longformer.training.engine import TrainingEngine
from longformer.training.records import Progress

STATE = "state"
RANDOM_STATES = "random-rank-*.safetensors"


class CheckpointWriter:
    """Writes the checkpoints of one phase; every rank holds one and calls its methods at the same steps.

    In the background means: `save` keeps a copy of the state in memory and returns; a thread writes, syncs and commits
    it while training goes on. The ranks' threads talk to each other in a process group of their own. The next `save`,
    or `finish`, waits for it and raises what went wrong.

    Args:
        directory: where the phase's checkpoints lie; shared by all ranks.
        engine: whose state is saved.
        phase: name of the phase.
        phase_index: its place in the run.
        config_fingerprint: of the run's config.
        kept: how many of the newest checkpoints stay; the best one stays beside them.
        permanent_every: checkpoints at multiples of so many steps stay for good; None = none do.
        in_background: whether training goes on meanwhile.
        copies: where every committed checkpoint is copied to; a failure there is only warned of.
    """

    def __init__(
        self,
        directory: Path,
        engine: TrainingEngine,
        phase: str,
        phase_index: int,
        config_fingerprint: str,
        *,
        kept: int,
        permanent_every: int | None = None,
        in_background: bool = False,
        copies: CheckpointCopies | None = None,
    ) -> None:
        self.directory = directory
        self.engine = engine
        self._phase, self._phase_index, self._config_fingerprint = phase, phase_index, config_fingerprint
        self._kept, self._permanent_every = kept, permanent_every
        self._copies = copies
        self._thread = ThreadPoolExecutor(1, "checkpoint") if in_background else None
        self._group = torch.distributed.new_group(backend="gloo") if in_background else None
        self._pending: Future[None] | None = None

    def save(self, progress: Progress, data: dict[str, Any]) -> Path:
        """Saves the state at a step border and returns where it lies once it is committed; all ranks must call it.

        Raises:
            LongformerError: it, or the one before it, cannot be written; nothing committed earlier is touched.
        """
        self.finish()
        target = checkpoint_path(self.directory, progress.step)
        staging = staging_of(target)
        manifest = self.manifest(progress, data)
        random_state = staging / STATE / f"random-rank-{self.engine.ranks.rank}.safetensors"
        with write_errors_explained(target):
            if self.engine.ranks.is_first:
                (empty_staging(target) / STATE).mkdir()
            torch.distributed.barrier()
            if self._thread is None:
                self.engine.save_state(staging, STATE)
                random_state.write_bytes(random_state_bytes())
                self._commit_together(staging, target, manifest)
            else:
                files = self.engine.state_files(staging, STATE) | {random_state: random_state_bytes()}
                self._pending = self._thread.submit(self._write_and_commit, files, staging, target, manifest)
        return target

    def finish(self) -> None:
        """Waits until the last checkpoint is committed.

        Raises:
            LongformerError: it cannot be written; nothing committed earlier is touched.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write_and_commit(
        self, files: dict[Path, bytes | memoryview], staging: Path, target: Path, manifest: Manifest
    ) -> None:
        with write_errors_explained(target):
            for path, content in files.items():
                path.write_bytes(content)
            self._commit_together(staging, target, manifest)

    def _commit_together(self, staging: Path, target: Path, manifest: Manifest) -> None:
        """Lets one rank commit what all have written."""
        torch.distributed.barrier(self._group)
        files = self._sync_and_describe(staging)
        if self.engine.ranks.is_first:
            replace(manifest, files=files).write(staging)
            commit(staging, target)
            remove_later(target)
            prune_checkpoints(
                self.directory, self._kept, permanent_every=self._permanent_every, spared=[best_before(target)]
            )
            self._copy(target)
        torch.distributed.barrier(self._group)

    def _copy(self, checkpoint: Path) -> None:
        if self._copies is None:
            return
        try:
            self._copies.add(checkpoint)
            self._copies.keep_only(committed_checkpoints(self.directory))
        except Exception as error:  # every storage has exceptions of its own
            print(f"warning: {checkpoint.name} was not copied to {self._copies.url} ({error})", file=sys.stderr)

    def _sync_and_describe(self, staging: Path) -> dict[str, dict[str, Any]]:
        """Syncs and hashes the staged files, each rank its share; returns all entries."""
        ranks = self.engine.ranks
        paths = sorted(path for path in staging.rglob("*") if path.is_file())
        share = {}
        for path in paths[ranks.rank :: ranks.world_size]:
            sync_file(path)
            share[str(path.relative_to(staging))] = describe_file(path)
        shares: list[Any] = [None] * ranks.world_size
        torch.distributed.all_gather_object(shares, share, self._group)
        return {name: entry for share in shares for name, entry in sorted(share.items())}

    def manifest(self, progress: Progress, data: dict[str, Any]) -> Manifest:
        """Returns what is to be known of the present state, without files."""
        return Manifest(
            phase=self._phase,
            phase_index=self._phase_index,
            progress=progress,
            data=data,
            ranks=self.engine.ranks.world_size,
            zero_stage=self.engine.settings.zero_stage,
            precision=self.engine.settings.precision,
            config_fingerprint=self._config_fingerprint,
            versions={name: version(name) for name in ("torch", "deepspeed", "longformer-train")},
        )


def restore(checkpoint: Path, engine: TrainingEngine) -> Manifest:
    """Puts engine and random generators into the state of a verified checkpoint; all ranks must call it.

    A rank that did not exist when the checkpoint was written keeps the random generator it has.

    Raises:
        LongformerError: the checkpoint does not fit the engine; the sentence says what does.
    """
    restore_weights_and_optimizer(checkpoint, engine)
    random_state = checkpoint / STATE / f"random-rank-{engine.ranks.rank}.safetensors"
    if random_state.exists():
        load_random_state(random_state)
    return Manifest.read(checkpoint)


def restore_weights_and_optimizer(checkpoint: Path, engine: TrainingEngine) -> None:
    """Puts only weights and optimizer into the state of a verified checkpoint; all ranks must call it.

    Raises:
        LongformerError: the checkpoint does not fit the engine; the sentence says what does.
    """
    manifest = Manifest.read(checkpoint)
    settings = engine.settings
    if manifest.precision != settings.precision:
        raise LongformerError(
            f"{checkpoint.name} was written with precision {manifest.precision}, not {settings.precision}; "
            f"go on with precision {manifest.precision}"
        )
    if not manifest.fits(ranks=engine.ranks.world_size, zero_stage=settings.zero_stage):
        raise LongformerError(
            f"{checkpoint.name} was written by {manifest.ranks} ranks with ZeRO stage {manifest.zero_stage}, not by "
            f"{engine.ranks.world_size} with stage {settings.zero_stage}; `longformer checkpoint reshard` converts it"
        )
    engine.load_state(checkpoint, STATE, universal=manifest.is_universal)


@contextmanager
def write_errors_explained(target: Path) -> Iterator[None]:
    """Turns what the system says about a failed write into one sentence with the space that is left."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "torch could not write a file"
        # Of RuntimeErrors only those of torch's file format are about files; others tell of another rank's death.
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        raise LongformerError(
            f"checkpoint {target.name} could not be written to {target.parent} ({reason}; {_free_space(target)}); "
            "make room, then resume: earlier checkpoints are whole"
        ) from error


def _free_space(target: Path) -> str:
    existing = next(path for path in target.parents if path.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.1f} MiB are free"


def random_state_bytes() -> bytes:
    """Returns the states of torch's generators on the CPU and, where in use, on this rank's CUDA device, as a file."""
    from safetensors.torch import save

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return save(states)


def load_random_state(path: Path) -> None:
    """Sets torch's generators to the saved states."""
    from safetensors.torch import load_file

    states = load_file(path)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
